"""The notebook runner: what papermill lets pass is an error here."""

import json

import nbformat
import pytest

from lib import files
from lib.paths import EVIDENCE, NOTEBOOKS
from lib.study import parameters, sweep
from lib.study import run as runner

PARAMETERS = """source: str = "recorded"  # where numbers come from
questions: int = 0
share: float = 0.5
fast: bool = False
budgets: list[int] = [16, 32]
"""


def _notebook(path, *cells, parameters=PARAMETERS):
    book = nbformat.v4.new_notebook()
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book.cells = [nbformat.v4.new_code_cell(source) for source in (parameters, *cells)]
    book.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(book, path)
    return path


@pytest.fixture
def notebook(tmp_path):
    return _notebook(tmp_path / "book.ipynb", "print(source, questions, share, fast, budgets)")


def test_values_take_the_declared_types(notebook):
    pairs = [("questions", "40"), ("share", "1e-1"), ("fast", "True"), ("source", "7")]
    assert sweep.resolve(notebook, pairs) == {"questions": 40, "share": 0.1, "fast": True, "source": "7"}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("question", "4", "parameter 'question' is unknown to book.ipynb; known: source, questions"),
        ("questions", "4.0", "parameter questions is int, got '4.0'"),
        ("questions", "1_000", "parameter questions is int"),
        ("share", "nan", "parameter share is float"),
        ("fast", "true", "parameter fast is bool, got 'true'; write True or False"),
        ("budgets", "16", "give lists in a file"),
    ],
)
def test_a_wrong_word_stops_before_anything_runs(notebook, tmp_path, capsys, name, value, said):
    out = tmp_path / "out.ipynb"
    assert runner.main([str(notebook), str(out), "-p", name, value]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("questions: '4'", r"parameter questions is int, got '4' \(str\)"),
        ("questions: true", r"parameter questions is int, got True \(bool\)"),
        ("fast: 1", "parameter fast is bool"),
        ("source: 1", "parameter source is str"),
        ("sauce: live", "parameter 'sauce' is unknown"),
        ("[1, 2]", "must hold names and values"),
        ("a: b: c", "is not YAML"),
        ("notebooks: {other: {}}", "has no notebook book; known: other"),
    ],
)
def test_a_wrong_file_is_refused(notebook, tmp_path, text, said):
    path = tmp_path / "sweep.yml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        sweep.resolve(notebook, file=path)


def test_sweep_sections_and_the_command_line_win_in_order(notebook, tmp_path):
    path = tmp_path / "sweep.yml"
    path.write_text("all: {questions: 1, share: 1}\nnotebooks:\n  book: {questions: 2}\n")
    assert sweep.resolve(notebook, file=path) == {"questions": 2, "share": 1.0}
    assert sweep.resolve(notebook, [("questions", "3")], path)["questions"] == 3


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("x = 1 + y", "not a literal"),
        ("x: int", "no plain assignment"),
        ("import os", "no plain assignment"),
        ("x: dict = {}", "has type dict"),
        ("x = (", "not Python"),
    ],
)
def test_a_parameters_cell_that_cannot_be_read(tmp_path, cell, said):
    with pytest.raises(ValueError, match=said):
        parameters.read_parameters(_notebook(tmp_path / "book.ipynb", parameters=cell))


def test_a_notebook_needs_one_tagged_cell(tmp_path):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")])
    nbformat.write(book, tmp_path / "book.ipynb")
    with pytest.raises(ValueError, match="has 0 cells tagged 'parameters'"):
        parameters.read_parameters(tmp_path / "book.ipynb")
    (tmp_path / "text.ipynb").write_text("no notebook")
    for name, said in (("text.ipynb", "is not a notebook"), ("absent.ipynb", "does not exist")):
        with pytest.raises(ValueError, match=said):
            parameters.read_parameters(tmp_path / name)


@pytest.mark.filterwarnings(
    "ignore:.*:DeprecationWarning", "ignore:.*:ResourceWarning"
)  # of the kernel client
def test_a_run_leaves_a_finished_notebook_with_its_identity(notebook, tmp_path, capsys):
    out = tmp_path / "runs" / "out.ipynb"
    assert runner.main([str(notebook), str(out), "-p", "questions", "5"]) == 0
    finished = nbformat.read(out, as_version=4)
    printed = [cell.outputs[0].text for cell in finished.cells if cell.cell_type == "code" and cell.outputs]
    assert printed == ["recorded 5 0.5 False [16, 32]\n"]
    told = finished.metadata["study_run"]
    assert told["parameters"]["questions"] == 5
    assert told["parameters"]["source"] == "recorded"
    assert len(told["notebook_sha256"]) == len(told["lib_sha256"]) == 64
    assert json.loads(capsys.readouterr().out.splitlines()[0])["notebook"] == "book.ipynb"
    assert [path.name for path in out.parent.iterdir()] == ["out.ipynb"]


@pytest.mark.filterwarnings(
    "ignore:.*:DeprecationWarning", "ignore:.*:ResourceWarning"
)  # of the kernel client
def test_a_failed_run_leaves_nothing_that_looks_finished(tmp_path, capsys):
    notebook = _notebook(tmp_path / "book.ipynb", "raise RuntimeError('broken on purpose')")
    out = tmp_path / "out.ipynb"
    out.write_text("an older run")
    assert runner.main([str(notebook), str(out)]) == 1
    assert "RuntimeError: broken on purpose" in capsys.readouterr().err
    assert not out.exists()
    assert (tmp_path / "out.failed.ipynb").exists()
    assert runner.main([str(notebook), str(notebook)]) == 2


@pytest.mark.filterwarnings(
    "ignore:.*:DeprecationWarning", "ignore:.*:ResourceWarning"
)  # of the kernel client
def test_a_dead_kernel_is_one_error_and_leaves_nothing_that_looks_finished(tmp_path, capsys):
    notebook = _notebook(tmp_path / "book.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert runner.main([str(notebook), str(tmp_path / "out.ipynb")]) == 1
    assert "error: book.ipynb did not finish: Kernel died" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["book.ipynb", "out.failed.ipynb"]


def test_a_second_run_of_the_same_out_is_refused_and_harms_nothing(notebook, tmp_path, capsys):
    out = tmp_path / "out.ipynb"
    out.write_text("the first run's")
    with files.alone(out.with_suffix(".lock"), "out.ipynb"):
        assert runner.main([str(notebook), str(out)]) == 1
    assert "did not finish: out.ipynb is in use by process" in capsys.readouterr().err
    assert out.read_text() == "the first run's"


START = NOTEBOOKS / "00_start_here.ipynb"


@pytest.mark.parametrize(
    ("path", "given"),
    [
        (START, ("keep", "8")),
        (START, ("source", "live")),
        *((path, ("seed", "1")) for path in sorted(NOTEBOOKS.glob("*.ipynb"))),
    ],
    ids=lambda value: getattr(value, "stem", None),
)
def test_committed_places_are_for_the_committed_parameters(path, given, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runner, "run", None)  # nothing runs
    assert runner.main([str(path), str(tmp_path / "o.ipynb"), "-p", *given]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"output must name a folder, as {given[0]} is " in said
    assert runner.main([str(path), str(tmp_path / "o.ipynb"), "-p", *given, "-p", "output", "committed"]) == 2
    values = sweep.resolve(path, [given, ("output", str(tmp_path))])
    assert values["output"] == str(tmp_path)


def test_a_run_with_the_committed_parameters_writes_the_committed_places():
    for run in sweep.read_runs(sweep.RECORDED, NOTEBOOKS):
        path = NOTEBOOKS / f"{run.notebook}.ipynb"
        assert sweep.resolve(path) == {"output": EVIDENCE}
        # All parameters stand in the sweep, so that one edited in a notebook is noticed, too.
        defaults = {name: one.default for name, one in parameters.read_parameters(path).items()}
        assert run.values == defaults | {"output": EVIDENCE}
        assert run.output == ""


def test_an_edited_notebook_and_a_foreign_one_do_not_write_the_committed_places(tmp_path, monkeypatch):
    book = nbformat.read(START, as_version=4)
    (cell,) = (cell for cell in book.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source = cell.source.replace("keep: int = 16", "keep: int = 8")
    nbformat.write(book, tmp_path / START.name)
    assert sweep.resolve(tmp_path / START.name) == {}  # places("") is none of them
    with pytest.raises(ValueError, match="is none of the notebooks that make what is committed"):
        sweep.resolve(tmp_path / START.name, [("output", EVIDENCE)])
    monkeypatch.setattr(sweep, "NOTEBOOKS", tmp_path)
    with pytest.raises(
        ValueError, match=r"output must name a folder, as keep is 8: .* written with 16 alone"
    ):
        sweep.resolve(tmp_path / START.name)
