"""Reading parquet by row groups: what is skipped is not read, what is broken is named."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.study.harness import shards
from testkit.benchmark_files import cell


@pytest.fixture
def paths(tmp_path):
    made = []
    for part in range(2):
        rows = [
            {"key": f"{part}-{place}", "text": f"t{place}", "kind": "ab"[place % 2]} for place in range(5)
        ]
        made.append(tmp_path / f"part-{part}.parquet")
        pq.write_table(pa.Table.from_pylist(rows), made[-1], row_group_size=2, compression="none")
    return made


def test_rows_from_any_start(paths):
    every = [
        (part * 5 + place, f"part-{part}.parquet row {place}", f"{part}-{place}")
        for part in (0, 1)
        for place in range(5)
    ]
    for start in range(11):
        found = [(number, where, row["key"]) for number, where, row in shards.rows(paths, ["key"], start)]
        assert found == every[start:]


def test_groups_before_the_start_are_not_read(paths):
    content = bytearray(paths[0].read_bytes())
    group = pq.ParquetFile(paths[0]).metadata.row_group(0).column(0)
    begin = group.dictionary_page_offset or group.data_page_offset
    content[begin : begin + group.total_compressed_size] = b"\xff" * group.total_compressed_size
    paths[0].write_bytes(bytes(content))
    assert len(list(shards.rows(paths, ["key"], 2))) == 8
    with pytest.raises(ValueError, match=r"part-0\.parquet is not a readable parquet file, fetch it again"):
        list(shards.rows(paths, ["key"], 1))


def test_counts(paths):
    assert shards.count(paths, ["key"]) == 10
    assert shards.count(paths, ["key", "kind"], ("kind", "a")) == 6
    assert shards.count(paths, ["key", "kind"], ("kind", "c")) == 0
    with pytest.raises(
        ValueError, match=r"part-0\.parquet: column 'other' is missing; the file has key, text, kind"
    ):
        shards.count(paths, ["key", "other"])


def test_pictures_are_found_by_key(paths):
    found = shards.Pictures(paths, "key", "text")
    assert [found[name] for name in ("1-4", "0-0", "1-0", "0-4")] == ["t4", "t0", "t0", "t4"]
    with pytest.raises(ValueError, match=r"picture '7' is in none of part-0\.parquet, part-1\.parquet"):
        found["7"]


def test_cells_of_pictures():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    stored = cell(pixels)
    for form in (stored, stored["bytes"], [stored]):
        assert np.array_equal(np.asarray(shards.picture(form)), pixels)
    for form in (None, [], {"bytes": None, "path": "a.jpg"}, {"bytes": b""}):
        with pytest.raises(ValueError, match="the picture is missing"):
            shards.picture(form)
