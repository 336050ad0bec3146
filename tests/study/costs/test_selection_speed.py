"""The restated loop picks as the library does; the table has its columns; bad arguments are refused. No times."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from lib.pruning import selection
from lib.study.costs import selection_speed
from lib.study.costs.inputs import make_inputs
from lib.study.costs.published_loop import published_loop
from lib.study.parity import oracles
from testkit.commands import command


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("tokens", "keep"), [(36, 12), (144, 30), (576, 57)])
def test_the_loop_picks_as_the_library(seed, tokens, keep):
    given = make_inputs(tokens, 32, 1, seed)
    picks = published_loop(given.scores[0], given.features[0], given.grid, keep)
    quick = selection.adaptive_nms(given.scores, given.features, given.grid, keep, order="picked")
    assert quick[0].tolist() == picks


def test_the_loop_is_the_slow_transcription_with_other_widths():
    given = make_inputs(36, 16, 1, 3)
    options = {"radius": 2.5, "sigma_distance": 0.8, "sigma_similarity": 0.3}
    row = given.scores[0], given.features[0]
    expected = oracles.adaptive_nms(*(x.numpy() for x in row), given.grid, 12, **options)
    assert published_loop(*row, given.grid, 12, **options) == expected


def test_a_tiny_run_writes_the_table(tmp_path):
    out = tmp_path / "deep" / "speed.csv"
    words = ["--out", out, "--sizes", "16:4,25:6", "--repeats", 2, "--batches", "1,2"]
    done = command("selection-speed", *words)
    assert done.exit_code == 0
    assert done.stdout == f"done: {out}\n"
    assert [path.name for path in out.parent.iterdir()] == ["speed.csv"]
    table = pd.read_csv(out)
    assert tuple(table.columns) == selection_speed.COLUMNS
    names = {name for name, _, _ in selection_speed.SELECTIONS} | {selection_speed.LOOP}
    assert set(table["selection"]) == names
    a_size = sum(max(1, len(widths)) for _, widths, _ in selection_speed.SELECTIONS)
    assert len(table) == 2 * (2 * a_size + 1)
    assert (table["median_ms"] > 0).all()
    assert (table["low_ms"] <= table["median_ms"]).all()
    assert (table["median_ms"] <= table["high_ms"]).all()
    beside = table[(table["selection"] == selection_speed.FAST) & (table["batch"] == 1)]
    assert beside["same_picks"].astype(bool).all()
    assert (beside["times_faster_than_loop"] > 0).all()
    assert table.drop(beside.index)["times_faster_than_loop"].isna().all()
    assert set(table["threads"]) == {1}
    assert set(table["device"]) == {"cpu"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--repeats", "0"], "repeats must be at least 1, got 0"),
        (["--threads", "-1"], "threads must be at least 1, got -1"),
        (["--batches", "0"], "batches must be at least 1, got 0"),
        (["--sizes", "15:4"], "tokens must be a square number, for a square grid; got 15"),
        (["--sizes", "16:17"], "keep=17 asks for 17 of 16 tokens"),
        (["--out", "speed.txt"], "out must be a .csv file, got speed.txt"),
    ],
)
def test_bad_arguments_are_refused(words, said, tmp_path):
    done = command("selection-speed", "--out", tmp_path / "table.csv", *words)
    assert done.exit_code == 2
    assert said in done.stderr


@pytest.mark.parametrize("size", ["576", "a:b", "1:2:3"])
def test_a_size_that_cannot_be_read_is_refused(size):
    done = command("selection-speed", "--sizes", size)
    assert done.exit_code == 2
    assert f"a size is TOKENS:KEEP, two ints, got {size!r}" in done.stderr


def test_inputs_have_no_ties():
    given = make_inputs(576, 4, 2)
    for row in given.scores:
        assert row.unique().numel() == math.prod(given.grid)
