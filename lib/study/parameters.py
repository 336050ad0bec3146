"""The parameters cell of a notebook: its names, types and defaults, and values checked against them."""

import ast
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_TYPES: Mapping[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "list": list}
_INT = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class Parameter(NamedTuple):
    """One assignment of the parameters cell."""

    name: str
    kind: str  # a key of _TYPES
    default: object


def _cells(notebook: Path) -> list[dict]:
    """Cells of a notebook of format 4, each source as one text."""
    if not notebook.is_file():
        raise ValueError(f"NOTEBOOK {notebook} does not exist")
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return [cell | {"source": "".join(cell["source"])} for cell in cells]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"NOTEBOOK {notebook} is not a notebook ({type(error).__name__})") from error


def cells_digest(notebook: Path) -> str:
    """Sha-256 of a notebook's code cells: outputs, counts, prose and metadata do not change it."""
    code = [cell["source"] for cell in _cells(notebook) if cell.get("cell_type") == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """Read the parameters cell: one annotated or plain assignment of a literal per line.

    Raises
    ------
    ValueError
        No such notebook, no or several tagged cells, or a line that is no assignment of a literal.
    """
    tagged = [cell for cell in _cells(notebook) if "parameters" in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(
            f"NOTEBOOK {notebook} has {len(tagged)} cells tagged 'parameters', needs exactly one"
        )
    try:
        body = ast.parse(tagged[0]["source"]).body
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
