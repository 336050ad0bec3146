"""A workspace with a tiny sweep (seconds), run by the study's own Snakefile, runner and records."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd

from lib.paths import ROOT
from lib.study import records

PROFILES = ROOT / "data" / "sweeps" / "profiles"
ROWS = 20_000  # of a record: enough that writing takes a while
PARAMETERS = 'output: str = ""\nparts: int = 2\nwait: float = 0.2\nscale: float = 1.0\n'
COUNT = f"""import time
import pandas as pd
from lib.paths import places
from lib.study import records
from lib.files import cut_short
folder = places(output).records
for part in range(parts):
    path = folder / f"part-{{part}}.parquet"
    if not path.exists() or cut_short(path):
        ids = [f"{{part}}-{{row}}" for row in range({ROWS})]
        frame = pd.DataFrame({{"model": "none", "measure": "count", "suite": "none", "question_id": ids, "image_id": ids}})
        records.write(frame.assign(value=scale * (part + 1)), path, records.provenance(part=part), "measure")
    time.sleep(wait)"""
TOTAL = """from lib.paths import places
from lib.study import records, tables
where = places(output)
found = records.read_folder(where.records, "measure").groupby("measure", as_index=False)["value"].sum()
tables.write_table(found, where.tables / "total.csv")"""
SWEEP = """all: {{output: {output}, scale: 2.0}}
notebooks:
  count:
    wait: {wait}
    sets:
      few: {{parts: 2}}
      more: {{parts: 3}}
  total:
    parts: 2
    sets:
      few: {{}}
jobs:
  count: {{threads: 1, mem_mb: 500, runtime: 5}}
  total: {{threads: 1, mem_mb: 500, runtime: 5, after: [count]}}
"""
RUNS = {"count--few": ("few", 2), "count--more": ("more", 3), "total--few": ("few", 2)}


def write_notebook(path: Path, source: str, parameters: str = PARAMETERS) -> Path:
    """Write a notebook of a parameters cell and one cell."""
    book = nbformat.v4.new_notebook()
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book.cells = [nbformat.v4.new_code_cell(text) for text in (parameters, source)]
    book.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(book, path)
    return path


@dataclass(frozen=True)
class Workspace:
    """A folder that Snakemake runs in; `output` is where the sweep's runs write."""

    folder: Path
    output: Path

    @classmethod
    def make(cls, folder: Path, wait: float = 0.2) -> "Workspace":
        """Make the notebooks, the sweep and a link to the library under test."""
        for name in ("notebooks", "data/sweeps", "data/runs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "data/claims.csv").touch()
        (folder / "lib").symlink_to(ROOT / "lib")
        write_notebook(folder / "notebooks/count.ipynb", COUNT)
        write_notebook(folder / "notebooks/total.ipynb", TOTAL)
        made = cls(folder, folder / "data/runs/tiny")
        made.sweep.write_text(SWEEP.format(output=made.output, wait=wait), encoding="utf-8")
        return made

    @property
    def sweep(self) -> Path:
        return self.folder / "data/sweeps/tiny.yml"

    def finished(self, name: str) -> Path:
        """Where the finished notebook of a run lies."""
        return self.folder / f"data/runs/tiny/notebooks/{name}.ipynb"

    def start(
        self, *more: str, profile: str = "local", cores: int = 2, log: str = "driver.log"
    ) -> subprocess.Popen:
        """Start a sweep in a session of its own; its words go to a log beside the workspace."""
        words = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        words += [
            "--directory",
            str(self.folder),
            "--profile",
            str(PROFILES / profile),
            "--cores",
            str(cores),
        ]
        words += ["--config", f"sweep={self.sweep.relative_to(self.folder)}", *more]
        with (self.folder.parent / f"{self.folder.name}-{log}").open("w", encoding="utf-8") as handle:
            return subprocess.Popen(
                words, stdout=handle, stderr=subprocess.STDOUT, cwd=self.folder.parent, start_new_session=True
            )

    def said(self, log: str = "driver.log") -> str:
        """What a sweep said."""
        return (self.folder.parent / f"{self.folder.name}-{log}").read_text(encoding="utf-8")

    def run(self, *more: str, log: str = "driver.log", timeout: float = 300, **options) -> tuple[int, str]:
        """Run a sweep to its end; return its exit status and what it said."""
        status = self.start(*more, log=log, **options).wait(timeout)
        return status, self.said(log)

    def done(self) -> list[str]:
        """Runs whose finished notebook is in its place."""
        return [name for name in RUNS if self.finished(name).exists()]

    def half(self) -> list[str]:
        """What looks done and is not whole: finished notebooks, the records and the table that they stand for."""
        return [fault for name in self.done() for fault in self._faults(name)] + [
            f"{path.name} unreadable" for path in self.folder.rglob("*.parquet") if not _readable(path)
        ]

    def _faults(self, name: str) -> list[str]:
        folder, parts = RUNS[name]
        try:
            book = json.loads(self.finished(name).read_text(encoding="utf-8"))
            cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
            whole = all(cell["metadata"]["papermill"]["status"] == "completed" for cell in cells)
            whole &= book["metadata"]["study_run"]["parameters"]["parts"] == parts
        except (ValueError, KeyError) as error:
            return [f"{name}: {type(error).__name__}"]
        faults = [] if whole else [f"{name}: cells without a run"]
        place = self.output / folder
        held = sorted(path.name for path in (place / "records").rglob("*.parquet"))
        if held != [f"part-{part}.parquet" for part in range(parts)]:
            faults.append(f"{name}: records {held}")
        if name == "total--few":
            expected = 2.0 * ROWS * sum(part + 1 for part in range(parts))
            table = place / "tables" / "total.csv"
            if not table.exists() or pd.read_csv(table)["value"].tolist() != [expected]:
                faults.append(f"{name}: table")
        return faults


def _readable(path: Path) -> bool:
    try:
        return len(records.read(path, "measure")) == ROWS
    except ValueError:
        return False
