"""The repository's own rules: what git keeps, what must not be stale, what a notebook must look like."""

import ast
import re
import subprocess

import nbformat
import pytest

from lib.paths import NOTEBOOKS, README, ROOT, SWEEPS
from lib.study.readme import block, with_table
from lib.study.sweep import read_parameters, read_runs

BOOKS = sorted(NOTEBOOKS.glob("*.ipynb"))
TEXT = {".py", ".md", ".yml", ".yaml", ".toml", ".txt", ".cfg", ".cff", ".csv", ".ipynb", ".json", ".svg", ""}
COMMON = {"source": ("str", "recorded"), "output": ("str", ""), "questions": ("int", 0), "seed": ("int", 0)}

YOURS = "your-method"  # the one cell of all notebooks that may define a class: a reader's method


def _git(*words):
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    if done.returncode == 128:
        pytest.skip("not a git checkout")
    return done


def _files():
    listed = _git("ls-files", "--cached", "--others", "--exclude-standard").stdout.splitlines()
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def test_git_keeps_lib_and_drops_runs():
    for kept in (
        "lib/__init__.py",
        "lib/pruning/cues.py",
        "data/records/accuracy/a.parquet",
        "notebooks/a.ipynb",
    ):
        assert _git("check-ignore", kept).returncode == 1, kept
    for dropped in (
        ".venv/x",
        "data/runs/study/claims.csv",
        "data/models/scenes/checkpoints/a.pt",
        ".snakemake/x",
    ):
        assert _git("check-ignore", dropped).returncode == 0, dropped


def test_readme_table_is_not_stale():
    text = README.read_text(encoding="utf-8")
    assert text == with_table(text, block()), "run: python -m lib.study.readme --write"


def test_no_file_names_a_machine():
    # Written in parts, so that this file does not find itself.
    homes = re.compile(r"(?<![\w.])/" + r"(?:home|Users|root|work|mnt|tmp)/\w+" + r"|[A-Z]:\\\\Users")
    found = []
    for path in _files():
        if path.suffix in TEXT and homes.search(path.read_text(encoding="utf-8", errors="replace")):
            found.append(path.relative_to(ROOT).as_posix())
    assert not found


def test_no_large_file_is_tracked():
    large = [path.name for path in _files() if path.stat().st_size > 16 * 2**20]
    assert not large


def test_imports_go_one_way():
    above = {"pruning": ("lib.models", "lib.study"), "models": ("lib.study",)}
    for folder, forbidden in above.items():
        for path in (ROOT / "lib" / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not [name for name in names if name.startswith(forbidden)], path


def test_sweeps_fit_their_notebooks():
    for sweep in SWEEPS.glob("*.yml"):
        assert read_runs(sweep, NOTEBOOKS)


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
class TestNotebook:
    """One notebook as committed: run top to bottom, recorded, without traces of a machine or of papermill."""

    def test_parameters(self, path):
        known = read_parameters(path)
        assert {name: known[name][1:] for name in COMMON if name in known} == COMMON

    def test_metadata(self, path):
        book = nbformat.read(path, as_version=4)
        assert book.metadata["kernelspec"]["name"] == "python3"
        assert not {"papermill", "study_run"} & set(book.metadata)
        tags = {tag for cell in book.cells for tag in cell.metadata.get("tags", [])}
        assert not {"injected-parameters", "papermill-error-cell-tag", "raises-exception"} & tags
        assert not [cell for cell in book.cells if "papermill" in cell.metadata]

    def test_ran_in_order_without_error(self, path):
        code = [
            cell
            for cell in nbformat.read(path, as_version=4).cells
            if cell.cell_type == "code" and cell.source
        ]
        assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
        assert not [out for cell in code for out in cell.outputs if out.output_type == "error"]

    def test_defines_no_class_and_starts_with_a_title(self, path):
        book = nbformat.read(path, as_version=4)
        assert book.cells[0].source.startswith("# ")
        mine = [cell for cell in book.cells if YOURS in cell.metadata.get("tags", [])]
        assert len(mine) == (path.stem == "33_add_your_method")
        for cell in book.cells:
            if cell.cell_type == "code":
                classes = [node for node in ast.parse(cell.source).body if isinstance(node, ast.ClassDef)]
                assert len(classes) == (cell in mine)

    def test_a_method_fits_into_one_short_cell(self, path):
        cells = nbformat.read(path, as_version=4).cells
        mine = [cell.source for cell in cells if YOURS in cell.metadata.get("tags", [])]
        assert all(len(source.strip().splitlines()) <= 25 for source in mine)
