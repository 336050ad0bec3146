"""Prepared notebooks: parameters in place, no outputs, and nothing touched where the sweep is wrong."""

import nbformat
import pytest

from lib.study.prepare import prepare
from testkit.commands import command
from testkit.workspace import RUNS, Workspace


@pytest.fixture
def work(tmp_path):
    return Workspace.make(tmp_path / "work")


def test_every_run_lies_there_with_its_parameters_and_without_outputs(work):
    shown = work.folder / "notebooks/count.ipynb"
    book = nbformat.read(shown, as_version=4)
    book.cells[1].outputs, book.cells[1].execution_count = [nbformat.v4.new_output("stream", text="seen")], 7
    nbformat.write(book, shown)
    stale = work.output / "few/records/part-0.parquet"
    stale.parent.mkdir(parents=True)
    stale.touch()
    paths = prepare(work.sweep, work.folder)
    assert paths == [work.finished(name) for name in RUNS]
    assert not stale.exists()
    for path, (folder, parts) in zip(paths, RUNS.values(), strict=True):
        cells = nbformat.read(path, as_version=4).cells
        assert [cell.get("outputs") for cell in cells] == [[]] * 3
        values = {}
        exec(cells[0].source + "\n" + cells[1].source, values)
        assert (values["parts"], values["scale"]) == (parts, 2.0)
        assert values["output"] == str(work.output / folder)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("few: {parts: 2}", "few: {part: 2}", "parameter 'part' is unknown to count.ipynb"),
        (
            "few: {parts: 2}",
            'few: {output: ""}',
            "output of count--few must lie below data/runs/tiny, got ''",
        ),
        ("few: {parts: 2}", "few: {output: data/tables}", "got 'data/tables'"),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_is_emptied(work, old, new, said):
    work.output.mkdir(parents=True)
    (work.output / "kept").touch()
    work.sweep.write_text(work.sweep.read_text().replace(old, new))
    with pytest.raises(ValueError, match=said):
        prepare(work.sweep, work.folder)
    assert [path.name for path in work.output.iterdir()] == ["kept"]


def test_the_command_says_what_is_wrong(tmp_path):
    done = command("prepare", tmp_path / "absent.yml")
    assert done.exit_code == 2
    assert "absent.yml does not exist" in done.stderr
