"""Write files whole or not at all, and let one process at a time work on a thing."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout


@contextmanager
def whole(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; put it in place in one step when the block ends well.

    A reader sees the old file or the new one, never a part, whatever kills the writer and whenever the disk fills up.
    A killed writer leaves its ``.part`` file, which nothing reads.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}-{uuid4().hex[:8]}{path.suffix}.part")
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())  # else a power cut may keep the new name and lose the content
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def alone(path: Path | str, what: str) -> Iterator[None]:
    """Hold the lock file `path` for the length of the block; the system frees it when the holder dies, however it does.

    Parameters
    ----------
    path
        The lock file; beside it ``.holder`` tells who holds it. Both are gone afterwards.
    what
        Named in the error.

    Raises
    ------
    BlockingIOError
        At once, when another process holds it, with that process's id and since when.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    note = path.with_name(f"{path.name}.holder")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        told = note.read_text(encoding="utf-8") if note.exists() else ""
        holder = json.loads(told) if told else {"process": "unknown", "since": "just now"}
        raise BlockingIOError(
            f"{what} is in use by process {holder['process']} since {holder['since']}; "
            "wait for it or end it, then run again"
        ) from error
    try:
        with whole(note) as part:  # a second process reads all of it or nothing
            told = {"process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            part.write_text(json.dumps(told), encoding="utf-8")
        yield
    finally:
        # The lock's own file may go: filelock refuses one that was unlinked between opening and locking.
        for mine in (note, path):
            with suppress(
                OSError
            ):  # a folder that has become read-only keeps them, and the lock ends all the same
                mine.unlink()
        lock.release()


def cut_short(path: Path | str) -> bool:
    """Whether a parquet file lacks its first or last mark: it was truncated or is something else."""
    path = Path(path)
    if path.stat().st_size < 12:  # two marks and the footer's length
        return True
    with path.open("rb") as handle:
        first = handle.read(4)
        handle.seek(-4, os.SEEK_END)
        return first != b"PAR1" or handle.read(4) != b"PAR1"
