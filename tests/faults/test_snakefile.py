"""The study's own Snakefile on a tiny sweep: what is refused, what is stale and why."""

import nbformat
import pytest

from testkit.workspace import RUNS, Workspace, write_notebook


def _listed(said):
    """Runs of a dry run."""
    return {name for name in RUNS if f"notebooks/{name}.ipynb: notebooks/" in said}


def test_a_misspelt_parameter_is_refused_before_anything_runs(tmp_path):
    work = Workspace.make(tmp_path / "work")
    work.sweep.write_text(work.sweep.read_text().replace("few: {}", "few: {scael: 2.0}"))
    status, said = work.run()
    assert status == 1
    assert (
        "total--few: parameter 'scael' is unknown to total.ipynb; known: output, parts, wait, scale" in said
    )
    assert not list((work.folder / "data/runs").iterdir())


@pytest.mark.slow
def test_what_is_stale_is_done_again_and_nothing_else(tmp_path):
    work = Workspace.make(tmp_path / "work", wait=0.0)
    status, said = work.run()
    assert status == 0, said
    assert work.done() == list(RUNS)
    assert work.half() == []
    assert not [path for path in work.folder.rglob("*.lock") if ".snakemake" not in path.parts]

    notebook = work.folder / "notebooks/total.ipynb"
    book = nbformat.read(notebook, as_version=4)
    book.cells[1].outputs = [nbformat.v4.new_output("stream", text="seen")]
    nbformat.write(book, notebook)
    work.sweep.touch()
    assert "Nothing to be done" in work.run("--dry-run")[1]

    write_notebook(notebook, "print('other')")
    status, said = work.run("--dry-run")
    assert _listed(said) == {"total--few"}
    assert "Reason: Updated input files: notebooks/total.ipynb" in said

    record = work.output / "more/records/part-1.parquet"
    record.write_bytes(record.read_bytes()[:1000])
    assert (
        f"{record} was cut short: data/runs/tiny/notebooks/count--more.ipynb is done again"
        in work.run("--dry-run")[1]
    )
    assert work.done() == list(RUNS)  # a dry run removes nothing
    status, said = work.run()
    assert status == 0, said
    assert _listed(said) == {"total--few", "count--more"}
    assert work.done() == list(RUNS)
