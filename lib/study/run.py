"""Run one notebook with papermill, strictly.

papermill alone runs on when a parameter is misspelt or has another type, and leaves a finished-looking
notebook when a cell fails. Here both are errors: nothing runs on a wrong parameter (exit status 2), and a
failed run leaves only
``OUT`` with ``.failed`` in its name (exit status 1).
"""

import argparse
import ast
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import nbformat
import papermill
import yaml
from papermill.exceptions import PapermillExecutionError

from lib.paths import ROOT
from lib.study.records import provenance

KERNEL = "python3"
_TYPES: Mapping[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "list": list}
_INT = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class Parameter(NamedTuple):
    """One assignment of the parameters cell."""

    name: str
    kind: str  # a key of _TYPES
    default: object


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """Read the parameters cell: one annotated or plain assignment of a literal per line.

    Raises
    ------
    ValueError
        No such notebook, no or several tagged cells, or a line that is no assignment of a literal.
    """
    if not notebook.is_file():
        raise ValueError(f"NOTEBOOK {notebook} does not exist")
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, AttributeError, KeyError) as error:
        raise ValueError(f"NOTEBOOK {notebook} is not a notebook ({type(error).__name__})") from error
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(
            f"NOTEBOOK {notebook} has {len(tagged)} cells tagged 'parameters', needs exactly one"
        )
    try:
        body = ast.parse(tagged[0].source).body
    except SyntaxError as error:
        raise ValueError(f"NOTEBOOK {notebook}: the parameters cell is not Python ({error})") from error
    found = {}
    for node in body:
        parameter = _assignment(node, notebook)
        found[parameter.name] = parameter
    return found


def _assignment(node: ast.stmt, notebook: Path) -> Parameter:
    target = node.target if isinstance(node, ast.AnnAssign) else None
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
    line = ast.unparse(node)
    if not isinstance(target, ast.Name) or node.value is None:
        raise ValueError(f"NOTEBOOK {notebook}: parameters cell holds {line!r}, which is no plain assignment")
    try:
        default = ast.literal_eval(node.value)
    except ValueError as error:
        raise ValueError(f"NOTEBOOK {notebook}: {line!r} is not a literal") from error
    said = (
        ast.unparse(node.annotation).split("[")[0]
        if isinstance(node, ast.AnnAssign)
        else type(default).__name__
    )
    if said not in _TYPES:
        raise ValueError(f"NOTEBOOK {notebook}: {line!r} has type {said}; known: {', '.join(_TYPES)}")
    return Parameter(target.id, said, default)


def from_text(parameter: Parameter, text: str) -> object:
    """Turn a command-line word into the declared type, or raise ValueError."""
    if parameter.kind == "str":
        return text
    if parameter.kind == "bool" and text in ("True", "False"):
        return text == "True"
    if parameter.kind == "int" and _INT.fullmatch(text):
        return int(text)
    if parameter.kind == "float" and _FLOAT.fullmatch(text):
        return float(text)
    hint = {"bool": "; write True or False", "list": "; give lists in a file with -f"}.get(parameter.kind, "")
    raise ValueError(f"parameter {parameter.name} is {parameter.kind}, got {text!r}{hint}")


def from_file(parameter: Parameter, value: object) -> object:
    """Check a YAML value against the declared type; only a whole number may stand for a float."""
    if parameter.kind == "float" and type(value) is int:
        return float(value)
    if type(value) is not _TYPES[parameter.kind]:
        raise ValueError(
            f"parameter {parameter.name} is {parameter.kind}, got {value!r} ({type(value).__name__})"
        )
    return value


def read_sweep(path: Path, notebook: Path) -> dict[str, object]:
    """Read a notebook's parameters from a YAML file.

    The file is a flat mapping, or a sweep: `all` (for every notebook) and `notebooks` (by file stem, which
    win).
    """
    if not path.is_file():
        raise ValueError(f"-f {path} does not exist")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"-f {path} is not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise ValueError(f"-f {path} must hold names and values, got {type(content).__name__}")
    if "notebooks" not in content:
        return content
    if notebook.stem not in content["notebooks"]:
        raise ValueError(
            f"-f {path} has no notebook {notebook.stem}; known: {', '.join(content['notebooks'])}"
        )
    return {**(content.get("all") or {}), **(content["notebooks"][notebook.stem] or {})}


def resolve(
    notebook: Path, pairs: Sequence[tuple[str, str]] = (), file: Path | None = None
) -> dict[str, object]:
    """Return the checked values to pass: those of the file, then those of the command line, which win.

    Raises
    ------
    ValueError
        Naming the parameter and the value that does not fit.
    """
    known = read_parameters(notebook)

    def declared(name: str) -> Parameter:
        if name not in known:
            raise ValueError(f"parameter {name!r} is unknown to {notebook.name}; known: {', '.join(known)}")
        return known[name]

    values = {}
    for name, value in (read_sweep(file, notebook) if file else {}).items():
        values[name] = from_file(declared(name), value)
    for name, text in pairs:
        values[name] = from_text(declared(name), text)
    return values


def identity(notebook: Path, values: Mapping[str, object]) -> dict[str, object]:
    """Say what a run is: parameters, hashes of the notebook's source and of `lib`, commit, versions, date."""
    cells = nbformat.read(notebook, as_version=4).cells
    library = hashlib.sha256()
    for path in sorted((ROOT / "lib").rglob("*.py")):
        library.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    source = "\0".join(cell.source for cell in cells if cell.cell_type == "code")
    defaults = {name: parameter.default for name, parameter in read_parameters(notebook).items()}
    return provenance(
        notebook=notebook.name,
        parameters={**defaults, **values},
        notebook_sha256=hashlib.sha256(source.encode()).hexdigest(),
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
    """
    out = out.resolve()  # papermill changes the working directory while it runs
    running, failed = out.with_suffix(".running.ipynb"), out.with_suffix(".failed.ipynb")
    out.parent.mkdir(parents=True, exist_ok=True)
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
        nbformat.write(finished, running)
        os.replace(running, out)
    finally:
        if running.exists():
            os.replace(running, failed)
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run, return the exit status: 0 done, 1 a cell failed, 2 a wrong parameter."""
    parser = argparse.ArgumentParser(prog="python -m lib.study.run", description=__doc__.split("\n\n")[0])
    parser.add_argument("notebook", type=Path, metavar="NOTEBOOK")
    parser.add_argument("out", type=Path, metavar="OUT", help="where the finished notebook goes")
    parser.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("name", "value"),
        help="one parameter; may be repeated",
    )
    parser.add_argument(
        "-f", type=Path, metavar="file.yml", help="parameters, flat or as a sweep (all, notebooks)"
    )
    given = parser.parse_args(arguments)
    try:
        values = resolve(given.notebook, given.p, given.f)
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
    print(f"done: {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
