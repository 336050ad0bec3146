"""Write the notebooks of a sweep with their parameters in place and run none: pytest runs them then, cell by cell.

All is written below ``data/runs/SWEEP``, which is emptied first, so that a live notebook really asks anew.
"""

import shutil
from pathlib import Path

import nbformat
import papermill

from lib.files import whole
from lib.paths import ROOT
from lib.study.run import KERNEL
from lib.study.sweep import read_runs


def prepare(sweep: Path, root: Path = ROOT) -> list[Path]:
    """Write every run of a sweep as a notebook without outputs.

    Parameters
    ----------
    sweep
        The sweep file; its stem names the folder below ``data/runs``.
    root
        The repository.

    Returns
    -------
    list
        The notebooks, ``data/runs/SWEEP/notebooks/RUN.ipynb``.

    Raises
    ------
    ValueError
        Before anything is emptied: as `lib.study.sweep.read_runs` does, or naming a run that writes elsewhere.
    """
    base = root.resolve() / "data" / "runs" / sweep.stem
    runs = read_runs(sweep, root / "notebooks")
    for run in runs:
        if not run.output or not (root / run.output).resolve().is_relative_to(base):
            raise ValueError(
                f"{sweep}: output of {run.name} must lie below data/runs/{sweep.stem}, got {run.output!r}"
            )
    if base.exists():
        shutil.rmtree(base)
    paths = []
    for run in runs:
        source, path = root / "notebooks" / f"{run.notebook}.ipynb", base / "notebooks" / f"{run.name}.ipynb"
        book = papermill.execute_notebook(
            str(source), None, parameters=dict(run.values), kernel_name=KERNEL, prepare_only=True
        )
        for cell in book.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        with whole(path) as part:
            nbformat.write(book, part)
        paths.append(path)
    return paths
