"""Recompute from the committed records what the repository shows, and name every difference.

Every notebook runs again on the committed records, into a temporary folder; its tables, its figures' numbers, the claim
register and README's generated part are compared with the committed ones, cell by cell, and so are tables that code computes
from constructed numbers. Nothing committed is written.
Pictures themselves are not compared: each has its plotted numbers beside it.
"""

import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType

import pandas as pd
from tqdm import tqdm

from lib.paths import ROOT
from lib.study.pages import model_card
from lib.study.pages.manifest import CHECKED, Difference, compare_manifest
from lib.study.pages.readme import block, with_results
from lib.study.parity import table as parity
from lib.study.rounding import FIGURES, recurs
from lib.study.tables import write_table

# Tables that scripts measure: times and random draws are not the same twice on another machine.
SCRIPTED: Mapping[str, str] = MappingProxyType(
    {
        "selection_speed.csv": "python -m lib selection-speed",
        "precision_overlap.csv": "python -m lib half-precision",
        "fault_trials.csv": "PYTHONPATH=tests python -m testkit.fault_trials",
    }
)
# Tables that code computes from constructed numbers: what they say is the same on every machine.
COMPUTED: Mapping[str, Callable[[], pd.DataFrame]] = MappingProxyType({"parity.csv": parity.table})
_KEY_CELLS = 4  # so many leading cells name a row


def compare_tables(committed: Path, recomputed: Path, shown: str) -> list[Difference]:
    """Compare two CSV files cell by cell.

    Parameters
    ----------
    committed, recomputed
        Files; cells are compared as text.
    shown
        Name of the committed file in messages. Numbers of a figure in `lib.study.rounding.FIGURES` may differ by one unit of the
        last digit that is kept there.
    """
    stem = Path(shown).stem
    (head, *old), (fresh_head, *new) = _rows(committed), _rows(recomputed)
    if head != fresh_head:
        return [Difference(shown, "header", "", ",".join(head), ",".join(fresh_head))]
    found = []
    for line, (before, after) in enumerate(zip_longest(old, new), start=2):
        row = f"line {line} ({', '.join((before or after)[:_KEY_CELLS])})"
        if before is None or after is None:
            found.append(Difference(shown, row, "", _text(before), _text(after)))
            continue
        for column, one, other in zip_longest(head, before, after, fillvalue=""):
            if one != other and not (stem in FIGURES and _alike(stem, one, other)):
                found.append(Difference(shown, row, column, one, other))
    return found


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file)) or [[]]


def _text(row: Sequence[str] | None) -> str:
    return "no such row" if row is None else ",".join(row)


def _alike(figure: str, one: str, other: str) -> bool:
    try:
        return recurs(figure, float(one), float(other))
    except ValueError:
        return False


def compare_results(path: Path, results: str, shown: str) -> list[Difference]:
    """Compare what stands between the markers of a file with `results`; `shown` names the file in messages."""
    text = path.read_text(encoding="utf-8")
    fresh = with_results(text, results)
    lines = enumerate(zip_longest(text.splitlines(), fresh.splitlines()), start=1)
    return [
        Difference(shown, f"line {line}", "", one or "no such line", other or "no such line")
        for line, (one, other) in lines
        if one != other
    ]


def run_notebook(notebook: Path, output: Path, root: Path = ROOT) -> None:
    """Run a notebook on the committed records of a repository, in a process of its own.

    Raises
    ------
    ValueError
        With the last lines of what it said, when it failed.
    """
    command = [sys.executable, "-m", "lib.study.run", str(notebook), str(output / "run" / notebook.name)]
    done = subprocess.run(
        [*command, "-p", "source", "recorded", "-p", "output", str(output)],
        cwd=root,
        env={"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ValueError(f"{notebook.name} failed:\n" + "\n".join(done.stderr.splitlines()[-5:]))


def compare_output(stem: str, output: Path, root: Path = ROOT) -> tuple[list[Difference], set[str]]:
    """Compare what one notebook wrote with what is committed; return the differences and the files compared."""
    found, seen = [], set()
    for folder, committed in (("tables", "data/tables"), ("figures", "figures"), ("", "data")):
        for path in sorted((output / folder).glob("*.csv")):
            shown = f"{committed}/{path.name}"
            seen.add(shown)
            if (root / shown).is_file():
                found += compare_tables(root / shown, path, shown)
            else:
                found.append(Difference(shown, "", "", "no file", f"made by {stem}"))
    if (output / "claims.csv").is_file():  # the notebook that judges all claims writes the README, too
        # Tables of other notebooks are compared with what those write, so here they are read as committed.
        results = block(output / "claims.csv", output / "tables" / "accuracy.csv", root)
        found += compare_results(root / "README.md", results, "README.md")
        seen.add("README.md")
    card = root / model_card.PATH.relative_to(ROOT)
    if card.is_file() and (output / "tables" / "seed_gates.csv").is_file():
        shown = card.relative_to(root).as_posix()
        found += compare_results(card, model_card.block(root), shown)
        seen.add(shown)
    return found, seen


def compare_computed(root: Path = ROOT) -> tuple[list[Difference], set[str]]:
    """Make the committed tables of `COMPUTED` again; return the differences and the files compared."""
    found, seen = [], set()
    with tempfile.TemporaryDirectory() as scratch:
        for name, make in COMPUTED.items():
            shown = f"data/tables/{name}"
            if (root / shown).is_file():
                seen.add(shown)
                found += compare_tables(root / shown, write_table(make(), Path(scratch) / name), shown)
    return found, seen


def verify(
    root: Path = ROOT,
    stems: Sequence[str] = (),
    jobs: int = 2,
    run: Callable[[Path, Path, Path], None] = run_notebook,
) -> tuple[list[Difference], set[str]]:
    """Check the manifest of the records, then run notebooks and compare all they write.

    Parameters
    ----------
    root
        The repository.
    stems
        Notebooks by file stem; none means all, and computed tables too; then each committed table and figure must have been
        made.
    jobs
        Notebooks at a time.
    run
        From notebook, output folder and root to files in that folder.

    Returns
    -------
    tuple
        The differences, and the files that were recomputed.

    Raises
    ------
    ValueError
        An unknown notebook, `jobs` below 1, no manifest, or a notebook that failed.
    """
    books = {path.stem: path for path in sorted((root / "notebooks").glob("*.ipynb"))}
    unknown = [stem for stem in stems if stem not in books]
    if unknown:
        raise ValueError(f"notebook {unknown[0]!r} is unknown; known: {', '.join(books)}")
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    found = [one for name in CHECKED for one in compare_manifest(root / name, name)]
    seen: set[str] = set()
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(jobs) as pool:
        # A folder each: several notebooks write the same table, and each one's is compared.
        running = {pool.submit(run, books[stem], Path(scratch) / stem, root): stem for stem in stems or books}
        for done in (bar := tqdm(as_completed(running), total=len(running), desc="notebooks")):
            bar.set_postfix_str(running[done])
            done.result()
            mine, made = compare_output(running[done], Path(scratch) / running[done], root)
            found, seen = found + mine, seen | made
    if not stems:
        computed, made = compare_computed(root)
        found, seen = found + computed, seen | made
        found += [Difference(name, "", "", "a file", "made by no notebook") for name in _unmade(root, seen)]
    return sorted(set(found)), seen


def _unmade(root: Path, seen: set[str]) -> list[str]:
    wanted = [path for folder in ("data/tables", "figures") for path in sorted((root / folder).glob("*.csv"))]
    names = [path.relative_to(root).as_posix() for path in wanted if path.name not in SCRIPTED]
    return [name for name in [*names, "data/claims.csv", "README.md"] if name not in seen]
