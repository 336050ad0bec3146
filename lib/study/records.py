"""Write and read result files: parquet rows with their provenance inside the same file.

Two kinds of file, told apart by a mark in their metadata:

``accuracy``
    One row a question, arm and seed (`ACCURACY`).
``measure``
    One row a question and measured quantity, for claims about mechanisms and identities (`MEASURE`).
"""

import dataclasses
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lib.files import whole
from lib.paths import ROOT

_MARK = b"visual-token-study"
_PROVENANCE = b"provenance"
ACCURACY: Mapping[str, pa.DataType] = MappingProxyType(
    {
        "model": pa.string(),
        "method": pa.string(),  # name in methods.NAMES
        "arm": pa.string(),  # arm_label(method)
        "fields": pa.string(),  # the method's fields as JSON
        "keep": pa.int64(),  # visual tokens kept
        "positions": pa.string(),
        "suite": pa.string(),
        "question_id": pa.string(),
        "image_id": pa.string(),  # the cluster of every interval
        "question": pa.string(),
        "answer": pa.string(),
        "prediction": pa.string(),
        "correct": pa.float64(),
        "kept_on_evidence": pa.float64(),  # share of the evidence tokens that were kept; empty where unknown
        "seed": pa.int64(),  # -1 where the arm has none
    }
)
MEASURE: Mapping[str, pa.DataType] = MappingProxyType(
    {
        "model": pa.string(),
        "measure": pa.string(),
        "suite": pa.string(),
        "question_id": pa.string(),
        "image_id": pa.string(),
        "value": pa.float64(),
    }
)
KINDS = MappingProxyType({"accuracy": ACCURACY, "measure": MEASURE})
_KEYS = MappingProxyType(
    {
        "accuracy": ["model", "arm", "keep", "question_id", "seed"],
        "measure": ["model", "measure", "question_id"],
    }
)
_MAY_BE_EMPTY = frozenset({"kept_on_evidence"})
# Which question a method hears of, the model always being asked its own, and how the arm's label says so.
TOLD = MappingProxyType({"asked": "", "shuffled": " (shuffled question)", "earlier": " (earlier question)"})


def arm_label(method: object, told: str = "asked") -> str:
    """Name an arm: the method's name, each field that differs from its default, and what it was told.

    Parameters
    ----------
    method
        A method of `lib.pruning.methods` (any dataclass instance with a class attribute `name`).
    told
        A key of `TOLD`.

    Returns
    -------
    str
        "desap", "desap/share=1.0,similarity=vanilla" or "desap (earlier question)": fields in declaration
        order; keep and seed are left out, because they have columns of their own.
    """
    if not dataclasses.is_dataclass(method) or isinstance(method, type):
        raise ValueError(f"method must be a dataclass instance, got {method!r}")
    changed = []
    for field in dataclasses.fields(method):
        if field.name in ("keep", "seed"):
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        value = getattr(method, field.name)
        if default is None and value is not None:  # some classes fill in what the other fields call for
            default = getattr(dataclasses.replace(method, **{field.name: None}), field.name)
        if value != default:
            changed.append(f"{field.name}={value}")
    return method.name + ("/" + ",".join(changed) if changed else "") + TOLD[told]


def method_of(arm: str) -> str:
    """The method's name in an arm's label."""
    return arm.partition(" (")[0].partition("/")[0]


_PRODUCTS = (
    ":!data/records",
    ":!data/seeds",
    ":!data/tables",
    ":!figures",
)  # what runs write does not make the code another one


def provenance(**facts: object) -> dict[str, object]:
    """Collect what a record file says about its making.

    Parameters
    ----------
    facts
        What only the caller knows: config, seed, model, device, dtype, started, seconds, n ...

    Returns
    -------
    dict
        `facts` with commit, dirty, versions and date added; plain JSON values.
    """
    commit = _git("rev-parse", "HEAD")
    return {
        **facts,
        "commit": commit or "unknown",
        "dirty": bool(_git("status", "--porcelain", "--", ".", *_PRODUCTS)) if commit else None,
        "versions": installed("torch", "transformers", "numpy", "pandas", "pyarrow"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def installed(*packages: str) -> dict[str, str]:
    """Versions of Python and of some packages, "absent" for what is not installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _git(*words: str) -> str:
    """Return git's answer, or "" outside a checkout (a downloaded archive has no commit to name)."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _check_shape(found: Iterable[str], rows: int, kind: str, name: str) -> list[str]:
    """Return the columns of a kind in schema order, or raise ValueError where others were found, or no rows."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    columns = list(KINDS[kind])
    missing, extra = sorted(set(columns) - set(found)), sorted(set(found) - set(columns))
    if missing or extra:
        raise ValueError(f"{name}: columns missing {missing}, not known {extra}")
    if not rows:
        raise ValueError(f"{name}: no rows")
    return columns


def _checked(frame: pd.DataFrame, kind: str, name: str) -> pd.DataFrame:
    """Return the frame in schema order, or raise the ValueError that says what is wrong with it."""
    columns = _check_shape(frame.columns, len(frame), kind, name)
    empty = [column for column in columns if column not in _MAY_BE_EMPTY and frame[column].isna().any()]
    if empty:
        raise ValueError(f"{name}: empty values in {empty}")
    if kind == "accuracy" and not frame["correct"].between(0, 1).all():
        raise ValueError(
            f"{name}: correct must lie in [0, 1], got {frame['correct'].min()}..{frame['correct'].max()}"
        )
    twice = frame.duplicated(_KEYS[kind])
    if twice.any():
        raise ValueError(f"{name}: the same row twice: {frame.loc[twice, _KEYS[kind]].iloc[0].to_dict()}")
    return frame[columns]


def write(frame: pd.DataFrame, path: Path | str, facts: Mapping[str, object], kind: str = "accuracy") -> Path:
    """Write a record file whole or not at all.

    Parameters
    ----------
    frame
        Rows with exactly the columns of the kind.
    path
        Ends in ``.parquet``. An existing file is replaced in one step.
    facts
        From `provenance`; stored as JSON in the file's metadata.
    kind
        "accuracy" or "measure".

    Raises
    ------
    ValueError
        Names the file and the fault: columns, empty or out-of-range values, a row twice.
    """
    path = Path(path)
    frame = _checked(frame, kind, path.name)
    try:
        table = pa.Table.from_pandas(frame, schema=pa.schema(list(KINDS[kind].items())), preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{path.name}: {error}") from error
    told = {_MARK: kind.encode(), _PROVENANCE: json.dumps(dict(facts), sort_keys=True, default=str).encode()}
    with whole(path) as part:  # checksums, so that a damaged page is an error and not other numbers
        pq.write_table(
            table.replace_schema_metadata(told), part, compression="zstd", write_page_checksum=True
        )
    return path


def _opened(path: Path, wanted: str = "") -> tuple[str, dict[str, object], pa.Table | None]:
    """Open a file once: its kind, its facts and, where it is of the kind wanted, its rows unchecked."""
    if not path.is_file():
        raise ValueError(f"{path.name}: no such record file in {path.parent}")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            found = file.metadata.metadata or {}
            kind, facts = found.get(_MARK, b"").decode(), json.loads(found.get(_PROVENANCE, b"null"))
            rows = file.read() if kind == wanted else None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(
            f"{path.name}: not a readable parquet file ({str(error).splitlines()[0]})"
        ) from error
    if kind not in KINDS or not isinstance(facts, dict):
        raise ValueError(
            f"{path.name}: a parquet file, but not a record of this study (no provenance inside)"
        )
    return kind, facts, rows


def read(path: Path | str, kind: str = "accuracy") -> pd.DataFrame:
    """Read one record file and check it as `write` does.

    Raises
    ------
    ValueError
        One, naming the file and why: absent, corrupt, foreign, another kind, rows that break the schema.
    """
    path = Path(path)
    found, _, rows = _opened(path, kind)
    if rows is None:
        raise ValueError(f"{path.name}: holds {found} rows, asked for {kind}")
    return _checked(rows.to_pandas(), kind, path.name)


def read_provenance(path: Path | str) -> dict[str, object]:
    """Return what a record file says about its making."""
    return _opened(Path(path))[1]


def empty(kind: str = "accuracy") -> pd.DataFrame:
    """Return a frame of a kind without rows."""
    return pa.schema(list(KINDS[kind].items())).empty_table().to_pandas()


def read_folder(folder: Path | str, kind: str = "accuracy") -> pd.DataFrame:
    """Read every record file of a kind below a folder into one frame.

    Returns
    -------
    DataFrame
        Sorted by key; empty, with the right columns, where the folder holds none. A row that two files both
        hold is an error: which of them counts would depend on file names.
    """
    found = [(path.name, _opened(path, kind)[2]) for path in sorted(Path(folder).rglob("*.parquet"))]
    tables = [(name, rows) for name, rows in found if rows is not None]
    if not tables:
        return empty(kind)
    for name, rows in tables:
        _check_shape(rows.column_names, len(rows), kind, name)
    try:  # all at once, which is cheap
        together = pa.concat_tables([rows for _, rows in tables], promote_options="permissive")
        frame = _checked(together.to_pandas(), kind, str(folder))
    except ValueError:
        for name, rows in tables:  # one by one, to name the file whose rows are at fault, if it is one
            _checked(rows.to_pandas(), kind, name)
        raise
    return frame.sort_values(_KEYS[kind], ignore_index=True)
