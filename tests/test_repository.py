"""The repository's own rules: what git keeps, what must not be stale, what a notebook must look like."""

import ast
import re
import subprocess
from itertools import pairwise

import nbformat
import papermill
import pytest

from lib.paths import FIGURES, NOTEBOOKS, README, ROOT, SWEEPS
from lib.study.pages import model_card, page
from lib.study.pages.readme import block, with_results
from lib.study.parameters import read_parameters
from lib.study.sweep import read_runs

BOOKS = sorted(NOTEBOOKS.glob("*.ipynb"))
TEXT = {".py", ".md", ".yml", ".yaml", ".toml", ".txt", ".cfg", ".cff", ".csv", ".ipynb", ".json", ".svg", ""}
COMMON = {"source": ("str", "recorded"), "output": ("str", ""), "questions": ("int", 0), "seed": ("int", 0)}

# nbval compares these as text, but no picture: a cell that shows one saves the numbers that it plots.
COMPARED, PICTURE = {"text/plain", "text/html", "text/markdown"}, "image/png"
SWITCHES = re.compile(r"nbval|pytest_validate|raises-exception", re.IGNORECASE)  # what makes nbval look away
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
        ".versions/lowest/x",
        "data/runs/study/claims.csv",
        "data/models/scenes/checkpoints/a.pt",
        ".snakemake/x",
    ):
        assert _git("check-ignore", dropped).returncode == 0, dropped


@pytest.mark.parametrize(("path", "results"), [(README, block), (model_card.PATH, model_card.block)])
def test_written_results_are_not_stale(path, results):
    text = path.read_text(encoding="utf-8")
    assert text == with_results(text, results()), "run: python -m lib readme --write"


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


def test_nothing_imports_a_package_called_tests():
    # Dependencies install packages of this name, which come before a folder without `__init__.py`.
    for path in _files():
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not [name for name in names if name.split(".")[0] == "tests"], path


def test_sweeps_fit_their_notebooks():
    for sweep in SWEEPS.glob("*.yml"):
        assert read_runs(sweep, NOTEBOOKS)


def test_every_notebook_is_tried_live():
    assert {run.notebook for run in read_runs(SWEEPS / "smoke.yml", NOTEBOOKS)} == {
        path.stem for path in BOOKS
    }
    (call,) = re.findall(r"pytest (?:.|\\\n)*?data/runs/smoke/notebooks", (ROOT / "Makefile").read_text())
    assert "--nbval-lax " in call
    assert "--no-loadscope-reorder" in call  # in the order of names: the verdicts read what others recorded


def _texts(book):
    """Every text that a notebook's outputs hold."""
    for cell in book.cells:
        for out in cell.get("outputs", []):
            yield from [out.text] if out.output_type == "stream" else out.data.values()


def test_sanitizing_hides_figure_sizes_and_versions_alone():
    lines = (ROOT / "nbval.cfg").read_text(encoding="utf-8").splitlines()
    rules = [line.removeprefix("regex: ") for line in lines if line.startswith("regex")]
    # nbval drops a rule without a word when its replacement is empty or not on the next line.
    pairs = [lines[place + 1] for place, line in enumerate(lines) if line.startswith("regex")]
    assert all(re.fullmatch(r"replace: \S+", pair) for pair in pairs)
    allowed = re.compile(r"<Figure size [\d.x]+ with \d+ Axes>|[a-z]+ \d+\.\d+\.\d+(\+\w+)?\.?")
    hidden = {
        found.group(0)
        for path in BOOKS
        for text in _texts(nbformat.read(path, as_version=4))
        for rule in rules
        for found in re.finditer(rule, text)
    }
    assert hidden
    assert not [text for text in hidden if not allowed.fullmatch(text)]


def test_notebooks_are_compared_strictly_each_in_one_process():
    (call,) = re.findall(r"pytest [^\n]*loadfile(?:.|\\\n)*?notebooks/", (ROOT / "Makefile").read_text())
    assert "--nbval " in call
    assert "--nbval-sanitize-with=nbval.cfg" in call
    assert "--nbval-lax" not in call
    assert not (NOTEBOOKS / "conftest.py").exists()  # its hook could leave outputs out of the comparison


def test_every_figure_has_its_numbers():
    stems = {suffix: {path.stem for path in FIGURES.glob(f"*.{suffix}")} for suffix in ("png", "svg", "csv")}
    assert stems["png"]
    assert stems["png"] == stems["svg"] == stems["csv"]


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
class TestNotebook:
    """One notebook as committed: run top to bottom, recorded, without traces of a machine or of papermill."""

    def test_parameters(self, path):
        known = read_parameters(path)
        assert {name: known[name][1:] for name in COMMON if name in known} == COMMON
        assert list(papermill.inspect_notebook(path)) == list(
            known
        )  # it cannot read a comment that holds "="

    def test_nbval_compares_all_that_a_reader_sees(self, path):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not SWITCHES.search(" ".join([cell.source, *cell.metadata.get("tags", [])]))
            outputs = cell.get("outputs", [])
            # A warning is an output on stderr; where none is committed, one that appears fails the comparison.
            assert not [out for out in outputs if out.get("name") == "stderr"]
            shown = [out.data for out in outputs if "data" in out]
            assert not {kind for data in shown for kind in data} - COMPARED - {PICTURE}
            named = [name for name, _ in page.shown(outputs)]
            assert len(named) == sum(PICTURE in data for data in shown), (
                "a picture that page.show did not show"
            )
            assert all((FIGURES / f"{name}.csv").is_file() for name in named), "its numbers lie in no CSV"
            # The name of a drawn object says nothing, and memory addresses differ: end with page.show().
            assert not [
                data for data in shown if re.match(r"<(?!Figure|IPython)", data.get("text/plain", ""))
            ]

    def test_headings_descend_by_one_and_the_last_cell_tells_versions(self, path):
        book = nbformat.read(path, as_version=4)
        prose = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
        levels = [len(marks) for marks in re.findall(r"^(#+) ", prose, re.MULTILINE)]
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        assert re.search(r"\bversions\(", book.cells[-1].source)
        assert "torch" in book.cells[-1].outputs[0].text

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
