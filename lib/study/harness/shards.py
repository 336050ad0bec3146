"""Read benchmark files of parquet a row group at a time: no benchmark is ever held in memory."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

AT_ONCE = 16  # rows that are turned into Python objects together


def opened(path: Path, columns: Sequence[str]) -> pq.ParquetFile:
    """Open a parquet file that holds these columns.

    Raises
    ------
    ValueError
        Naming the file: it cannot be read, or a column is missing.
    """
    try:
        file = pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    if missing := [name for name in columns if name not in file.schema_arrow.names]:
        known = ", ".join(file.schema_arrow.names)
        raise ValueError(f"{path.name}: column {missing[0]!r} is missing; the file has {known}")
    return file


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path.name} is not a readable parquet file, fetch it again ({str(error).splitlines()[0]})"
    )


def rows(paths: Sequence[Path], columns: Sequence[str], start: int = 0) -> Iterator[tuple[int, str, dict]]:
    """Read rows from the `start`-th on, counted over all files; row groups before it are not read.

    Yields
    ------
    tuple
        Number of the row over all files, its place in words ("FILE row N"), its values by column.
    """
    first = 0
    for path in paths:
        file, inside = opened(path, columns), 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if first + inside + count > start:
                for place, row in enumerate(_group(path, file, group, columns), inside):
                    if first + place >= start:
                        yield first + place, f"{path.name} row {place}", row
            inside += count
        first += inside


def _group(path: Path, file: pq.ParquetFile, group: int, columns: Sequence[str]) -> Iterator[dict]:
    batches = file.iter_batches(AT_ONCE, row_groups=[group], columns=list(columns), use_threads=False)
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from error
        if batch is None:
            return
        yield from batch.to_pylist()


def count(paths: Sequence[Path], columns: Sequence[str], where: tuple[str, str] | None = None) -> int:
    """Rows of the files, or those of them whose column holds a value; only that column is read.

    Every file is opened, so that a broken one or a missing column is found before a model is loaded.
    """
    total = 0
    for path in paths:
        file = opened(path, columns)
        if where is None:
            total += file.metadata.num_rows
        else:
            column = file.read(columns=[where[0]]).column(0)
            total += pc.sum(pc.equal(column, where[1])).as_py() or 0
    return total


class Pictures:
    """Pictures that lie in files of their own, looked up by their key.

    Keys are held in memory, of the pictures the last few row groups.
    """

    def __init__(self, paths: Sequence[Path], key: str, image: str) -> None:
        self.paths, self.key, self.image = paths, key, image
        self.places: dict[object, tuple[int, int, int]] = {}
        for number, path in enumerate(paths):
            file = opened(path, (key, image))
            for group in range(file.num_row_groups):
                keys = file.read_row_group(group, columns=[key]).column(0).to_pylist()
                self.places |= {name: (number, group, place) for place, name in enumerate(keys)}
        self._read = lru_cache(maxsize=4)(self._read_group)

    def _read_group(self, number: int, group: int) -> list:
        path = self.paths[number]
        return [row[self.image] for row in _group(path, opened(path, (self.image,)), group, (self.image,))]

    def __getitem__(self, name: object) -> object:
        """The cell of one picture; ValueError names a key that no file holds."""
        if name not in self.places:
            raise ValueError(f"picture {name!r} is in none of {', '.join(path.name for path in self.paths)}")
        number, group, place = self.places[name]
        return self._read(number, group)[place]


def picture(cell: object) -> Image.Image:
    """Decode a cell of the hub's Image type ({bytes, path}) to RGB; of a list of pictures the first.

    Raises
    ------
    ValueError
        If the cell holds no bytes, or they are no picture.
    """
    if isinstance(cell, list):
        cell = cell[0] if cell else None
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes) or not data:
        raise ValueError("the picture is missing")
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"the picture cannot be decoded ({error})") from error
