"""The overlap of half-precision choices with float32 ones: its table, and what it counts."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from lib.pruning import methods
from lib.study.costs import half_precision
from testkit.commands import command


def test_a_tiny_run_writes_a_row_a_method_and_dtype(tmp_path):
    out = tmp_path / "overlap.csv"
    assert command("half-precision", "--out", out, "--tokens", 36, "--keep", 9, "--draws", 2).exit_code == 0
    table = pd.read_csv(out)
    assert tuple(table.columns) == half_precision.COLUMNS
    assert sorted({*table["method"], "none", "blind"}) == sorted(methods.NAMES)
    assert len(table) == 2 * table["method"].nunique()
    assert table["overlap_mean"].between(0, 1).all()
    assert (table["overlap_least"] <= table["overlap_mean"]).all()
    # What reads no floating cue cannot move.
    still = table[table["method"].isin(["random", "uniform", "centre_crop", "pool", "oracle"])]
    assert (still["overlap_least"] == 1).all()


def test_overlap_is_the_share_that_stays():
    cues = half_precision.random_cues(36)
    # Steps of 1/16384 above 1 vanish in bfloat16: all tie, so the lowest positions are chosen.
    steps = 1 + torch.arange(36) / 16384
    cues = methods.Cues(grid=cues.grid, features=cues.features, attention=steps[None, None])
    method = methods.make("fastv", keep=12)
    assert half_precision.overlap(method, cues, torch.float32) == 1
    assert half_precision.overlap(method, cues, torch.bfloat16) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--draws", "0"], "draws must be at least 1, got 0"),
        (["--tokens", "35"], "tokens must be a square number"),
        (["--tokens", "36", "--keep", "37"], "keep=37 asks for 37 of 36 tokens"),
        (["--out", "table.txt"], "out must be a .csv file, got table.txt"),
    ],
)
def test_bad_arguments_are_refused(words, said, tmp_path):
    done = command("half-precision", "--out", tmp_path / "table.csv", *words)
    assert done.exit_code == 2
    assert said in done.stderr
