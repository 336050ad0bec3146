"""Run one notebook with papermill, strictly.

papermill alone runs on when a parameter is misspelt or has another type, and leaves a finished-looking
notebook when a cell fails. Here both are errors: nothing runs on a wrong parameter (exit status 2), and a run that
does not finish (a failed cell, a dead kernel, a full disk, another run at work on ``OUT``) leaves no ``OUT`` of its
own, only a copy with ``.failed`` in its name if that could be written (exit status 1).
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from lib.files import alone, whole
from lib.paths import ROOT, user_path
from lib.study.parameters import cells_digest, read_parameters
from lib.study.records import provenance
from lib.study.sweep import resolve

KERNEL = "python3"


def identity(notebook: Path, values: Mapping[str, object]) -> dict[str, object]:
    """Say what a run is: parameters, hashes of the notebook's source and of `lib`, commit, versions, date."""
    library = hashlib.sha256()
    for path in sorted((ROOT / "lib").rglob("*.py")):
        library.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    defaults = {name: parameter.default for name, parameter in read_parameters(notebook).items()}
    return provenance(
        notebook=notebook.name,
        parameters={**defaults, **values},
        notebook_sha256=cells_digest(notebook),
        lib_sha256=library.hexdigest(),
    )


def run(notebook: Path, out: Path, values: Mapping[str, object]) -> Path:
    """Run a notebook and put the finished copy at `out`.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    PapermillExecutionError
        A cell failed; the copy with the error is ``<out stem>.failed.ipynb`` and `out` does not exist.
    RuntimeError
        The kernel died.
    OSError
        A full disk, a folder that cannot be written to, or (BlockingIOError) another run at work on `out`.
    """
    out = out.resolve()  # papermill changes the working directory while it runs
    with alone(out.with_suffix(".lock"), out.name):
        _run_alone(notebook, out, values)
    return out


def _run_alone(notebook: Path, out: Path, values: Mapping[str, object]) -> None:
    """`run`, while nobody else writes to `out`."""
    running, failed = out.with_suffix(".running.ipynb"), out.with_suffix(".failed.ipynb")
    for stale in (out, running, failed):  # an old copy would look like this run's
        stale.unlink(missing_ok=True)
    told = identity(notebook, values)
    print(json.dumps(told, sort_keys=True), flush=True)
    try:
        papermill.execute_notebook(
            str(notebook.resolve()),
            str(running),
            parameters=dict(values),
            kernel_name=KERNEL,
            progress_bar={"desc": notebook.stem, "mininterval": 1.0},
            stderr_file=sys.stderr,  # progress bars inside the notebook reach the terminal
            start_timeout=180,
            cwd=str(ROOT),
        )
        finished = nbformat.read(running, as_version=4)
        finished.metadata["study_run"] = told
        with whole(out) as part:
            nbformat.write(finished, part)
        running.unlink()
    finally:
        if running.exists():
            os.replace(running, failed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run, return the exit status: 0 done, 1 not finished, 2 a wrong parameter."""
    parser = argparse.ArgumentParser(prog="python -m lib.study.run", description=__doc__.split("\n\n")[0])
    parser.add_argument("notebook", type=user_path, metavar="NOTEBOOK")
    parser.add_argument("out", type=user_path, metavar="OUT", help="where the finished notebook goes")
    parser.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("name", "value"),
        help="one parameter; may be repeated",
    )
    parser.add_argument(
        "-f", type=user_path, metavar="file.yml", help="parameters, flat or as a sweep (all, notebooks)"
    )
    parser.add_argument("--set", default="", metavar="NAME", help="which of the notebook's sets in a sweep")
    given = parser.parse_args(arguments)
    try:
        values = resolve(given.notebook, given.p, given.f, given.set)
        if given.out.suffix != ".ipynb" or given.out.resolve() == given.notebook.resolve():
            raise ValueError(f"OUT must be another .ipynb file than NOTEBOOK, got {given.out}")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        run(given.notebook, given.out, values)
    except PapermillExecutionError as error:
        left = given.out.with_suffix(".failed.ipynb")
        print(
            f"error: {given.notebook.name} failed: {error.ename}: {error.evalue}\nsee {left}", file=sys.stderr
        )
        return 1
    except (
        RuntimeError,
        OSError,
    ) as error:  # the kernel died; the disk is full or read-only; another run is at work
        print(f"error: {given.notebook.name} did not finish: {error}", file=sys.stderr)
        return 1
    print(f"done: {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
