"""Sweeps: sets of parameters, what is refused before anything runs, and when a finished run still holds."""

import json
from pathlib import Path

import nbformat
import pytest

from lib.study import finished_runs, parameters, sweep
from testkit.workspace import RUNS, Workspace, write_notebook

NEEDS = {"total": ["count"]}


@pytest.fixture
def work(tmp_path):
    return Workspace.make(tmp_path / "work")


def _runs(work):
    return sweep.read_runs(work.sweep, work.folder / "notebooks")


def _finish(work, run):
    """A finished notebook of a run, as the runner leaves it."""
    path = work.finished(run.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {"notebook_sha256": run.cells, "parameters": dict(run.parameters)}
    path.write_text(json.dumps({"cells": [], "metadata": {"study_run": said}}))
    return path


def test_sets_have_names_values_and_folders_of_their_own(work):
    runs = _runs(work)
    assert [run.name for run in runs] == list(RUNS)
    assert [run.parameters["parts"] for run in runs] == [parts for _, parts in RUNS.values()]
    assert [run.output for run in runs] == [f"{work.output}/{folder}" for folder, _ in RUNS.values()]
    assert all(run.values["scale"] == 2.0 and run.job.mem_mb == 500 for run in runs)


def test_runs_wait_for_those_that_share_their_folder(work):
    few, more, total = _runs(work)
    assert sweep.before(total, [few, more, total], {}) == [few]  # the sweep's own `after`
    work.sweep.write_text(work.sweep.read_text().replace(", after: [count]", ""))
    runs = _runs(work)
    assert sweep.before(runs[2], runs, NEEDS) == [runs[0]]
    assert sweep.before(runs[2], runs, {}) == []


def test_a_set_without_an_output_never_writes_to_the_committed_places(tmp_path):
    write_notebook(tmp_path / "count.ipynb", "print(1)")
    path = tmp_path / "mine.yml"
    path.write_text("notebooks: {count: {sets: {a: {parts: 1}}}}")
    assert [run.output for run in sweep.read_runs(path, tmp_path)] == ["data/runs/mine/a"]
    path.write_text("notebooks: {count: {parts: 1}}")
    assert [(run.name, run.output) for run in sweep.read_runs(path, tmp_path)] == [("count", "")]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "few: {parts: 2}",
            "few: {part: 2}",
            "tiny.yml: count--few: parameter 'part' is unknown to count.ipynb",
        ),
        ("few: {parts: 2}", "few: {parts: two}", "count--few: parameter parts is int, got 'two'"),
        ("few: {parts: 2}", "few: 2", "count: few must hold names and values, got 2"),
        ("few: {parts: 2}", "a--b: {parts: 2}", "names of sets are letters"),
        ("  total:\n", "  absent: {}\n  total:\n", "absent.ipynb does not exist"),
        ("notebooks:\n", "books: {}\nnotebooks:\n", "section 'books' is unknown"),
        (
            "few: {parts: 2}",
            "few: {output: a}\n      many: {output: a}",
            "several sets of count write into 'a'",
        ),
        ("runtime: 5}", "minutes: 5}", "'minutes' is unknown; known: threads, mem_mb, runtime, gpu, after"),
        ("threads: 1", "threads: 0", "threads is a whole number of at least 1, got 0"),
        ("after: [count]", "after: [other]", "after lists notebooks of the sweep"),
        ("jobs:\n", "jobs:\n  other: {threads: 1}\n", "jobs names 'other'"),
    ],
)
def test_a_wrong_sweep_is_refused(work, old, new, said):
    text = work.sweep.read_text()
    assert old in text
    work.sweep.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=said):
        _runs(work)


def test_only_code_counts_as_a_change_of_a_notebook(work):
    path = work.folder / "notebooks/count.ipynb"
    before, book = parameters.cells_digest(path), nbformat.read(path, as_version=4)
    book.cells[1].outputs = [nbformat.v4.new_output("stream", text="seen")]
    book.cells[1].execution_count = 7
    book.cells.append(nbformat.v4.new_markdown_cell("prose"))
    nbformat.write(book, path)
    assert parameters.cells_digest(path) == before
    book.cells[1].source += "\n"
    nbformat.write(book, path)
    assert parameters.cells_digest(path) != before


def test_a_finished_run_tells_what_it_ran(work):
    few = _runs(work)[0]
    assert finished_runs.changed(few, work.finished(few.name)) == ["cells", "parameters"]  # none there
    path = _finish(work, few)
    assert finished_runs.changed(few, path) == []
    work.sweep.write_text(work.sweep.read_text().replace("scale: 2.0", "scale: 3.0"))
    assert finished_runs.changed(_runs(work)[0], path) == ["parameters"]
    write_notebook(work.folder / "notebooks/count.ipynb", "print('other')")
    assert finished_runs.changed(_runs(work)[0], path) == ["cells", "parameters"]


def test_a_finished_run_does_not_stand_on_what_was_cut_short(work):
    few = _runs(work)[0]
    assert finished_runs.broken(few, work.finished(few.name), Path()) == []
    path = _finish(work, few)
    assert finished_runs.broken(few, path, Path()) == []
    record = Path(few.output) / "records/a.parquet"
    record.parent.mkdir(parents=True)
    record.write_bytes(b"PAR1 half of a file")
    assert finished_runs.broken(few, path, Path()) == [f"{record} was cut short"]
    path.write_text(path.read_text()[:-9])
    assert finished_runs.broken(few, path, Path()) == [f"{path} is not a whole notebook of a run"]
