"""A file that grows a line at a time and survives a kill: what is done is never lost, never done twice.

First line: a JSON object that says what the file records. Each other line: one batch of answers, written at once. A line that was cut
off by a kill has no line end; it is removed when the file is opened again, and its batch is asked again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from lib.study.arms import Arm, record_path
from lib.study.harness.benchmarks import Benchmark


class Journal:
    """An open journal.

    Attributes
    ----------
    done : number of rows that it holds.
    last : number (`row`) of its last row, -1 where there is none.
    """

    def __init__(self, file, rows: Sequence[Mapping]) -> None:
        self._file = file
        self.done = len(rows)
        self.last = rows[-1]["row"] if rows else -1

    def append(self, rows: Sequence[Mapping], note: str = "") -> None:
        """Write a batch and wait until the disk has it."""
        _write(self._file, {"rows": list(rows), "note": note})
        self.done, self.last = self.done + len(rows), rows[-1]["row"]


def _write(file, content: Mapping) -> None:
    file.write(json.dumps(content, ensure_ascii=False).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def opened(path: Path, header: Mapping) -> Iterator[Journal]:
    """Open a journal for writing, new or where it stopped; one process at a time.

    Raises
    ------
    ValueError
        If another process writes to it, it records something else than `header` says, or a line is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{path.name}: another run is writing to it") from error
        file.seek(0)
        whole = file.read()
        kept = whole.rfind(b"\n") + 1
        if kept < len(whole):
            file.truncate(kept)
        if not kept:
            _write(file, header)
            yield Journal(file, [])
            return
        told, lines = _parsed(path, whole[:kept])
        wanted = json.loads(json.dumps(header))
        if told != wanted:
            odd = sorted(key for key in {*told, *wanted} if told.get(key) != wanted.get(key))
            raise ValueError(
                f"{path.name}: holds answers made with another {', '.join(odd)}; choose another --out or remove it"
            )
        yield Journal(file, [row for line in lines for row in line["rows"]])


def read(path: Path) -> tuple[dict, list[dict], list[str]]:
    """Read a journal: what it records, its rows in order, and the notes that differ.

    Raises
    ------
    ValueError
        If it is absent, or a line is damaged.
    """
    if not path.is_file():
        raise ValueError(f"{path.name}: no such journal in {path.parent}")
    whole = path.read_bytes()
    header, lines = _parsed(path, whole[: whole.rfind(b"\n") + 1])
    notes = list(dict.fromkeys(line["note"] for line in lines if line["note"]))
    return header, [row for line in lines for row in line["rows"]], notes


def _parsed(path: Path, content: bytes) -> tuple[dict, list[dict]]:
    found = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise ValueError(
                f"{path.name}: line {number} is damaged; remove the file and run again"
            ) from error
    if not found:
        raise ValueError(f"{path.name}: is empty; remove the file and run again")
    numbers = [row["row"] for line in found[1:] for row in line["rows"]]
    if any(later <= earlier for earlier, later in pairwise(numbers)):
        raise ValueError(f"{path.name}: a row is there twice; remove the file and run again")
    return found[0], found[1:]


def path_of(out: Path, of: Benchmark, arm: Arm) -> Path:
    """Where the answers of an arm to a benchmark grow."""
    return out / "answers" / of.name / f"{record_path(Path(), arm).stem}.jsonl"
