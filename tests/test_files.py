"""Files written whole or not at all, and locks that die with their holder."""

import subprocess
import sys
from contextlib import suppress

import pytest

from lib import files
from lib.paths import ROOT
from lib.study import records
from testkit.frames import accuracy_rows

HOLD = "import sys, time\nfrom lib.files import {name}\nwith {call}:\n    print('in', flush=True)\n    time.sleep(60)\n"
# A limit on the size of files stands in for a full disk: the write fails half-way, for any user on any file system.
FULL = """import resource, signal, sys
import pandas as pd
from lib.study import records
frame = records.read(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
records.write(frame.assign(seed=1), sys.argv[1], {})
"""


def _process(code, *words):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _killed_inside(call, name):
    with _process(HOLD.format(name=name, call=call)) as process:
        assert process.stdout.readline() == "in\n"
        yield process
        process.kill()


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with files.whole(path) as part:
        part.write_text("old")
    with suppress(RuntimeError), files.whole(path) as part:
        part.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_text("old")
    for _ in _killed_inside(f"whole({str(path)!r}) as part, part.open('w') as handle", "whole"):
        pass
    assert path.read_text() == "old"
    assert [found.suffix for found in tmp_path.iterdir() if found != path] == [
        ".part"
    ]  # which no reader takes


def test_a_full_disk_keeps_the_old_record(tmp_path):
    path = records.write(accuracy_rows("desap", 16, 0.5), tmp_path / "a.parquet", {})
    before = path.read_bytes()
    with _process(FULL, path) as process:
        said = process.communicate()[1]
    assert process.returncode == 1
    assert "OSError" in said
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_refuses_a_second_holder_and_ends_with_a_killed_one(tmp_path):
    path = tmp_path / "a.lock"
    for process in _killed_inside(f"alone({str(path)!r}, 'the sweep')", "alone"):
        with (
            pytest.raises(
                BlockingIOError, match=f"the sweep is in use by process {process.pid} since .*; wait for it"
            ),
            files.alone(path, "the sweep"),
        ):
            pass
    with files.alone(path, "the sweep"):
        assert path.exists()
        with pytest.raises(BlockingIOError, match="the sweep is in use"), files.alone(path, "the sweep"):
            pass
        assert path.exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("length", [0, 5, 200, -1])
def test_a_cut_record_is_seen_without_reading_it(tmp_path, length):
    path = records.write(accuracy_rows("desap", 16, 0.5), tmp_path / "a.parquet", {})
    assert not files.cut_short(path)
    path.write_bytes(path.read_bytes()[:length])
    assert files.cut_short(path)


def test_a_damaged_page_is_an_error_and_not_other_numbers(tmp_path):
    path = records.write(accuracy_rows("desap", 16, 0.5), tmp_path / "a.parquet", {})
    content = bytearray(path.read_bytes())
    for place in range(60, 90):
        content[place] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.parquet: not a readable parquet file"):
        records.read(path)
