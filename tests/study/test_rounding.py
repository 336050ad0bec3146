"""Digits that recur: what is rounded how, and one figure's numbers as another kind of processor computes them."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from lib.paths import FIGURES, NOTEBOOKS
from lib.study import rounding, stats
from lib.study.pages import verify
from lib.study.pages.looks import save

NAME = "10_patch_and_word"
# A small stand-in for the figure: cosines of features that went through layers of float32 sums and exponentials.
COSINES = """
import json
import torch
torch.set_num_threads(1)
draw = torch.Generator().manual_seed(0)
features, words = (torch.randn(rows, 96, generator=draw) for rows in (144, 9))
for _ in range(3):
    weights = torch.randn(96, 96, generator=draw) / 10
    features = torch.nn.functional.layer_norm(features + torch.nn.functional.gelu(features @ weights), (96,))
    features = features + torch.softmax(features @ features.T, -1) @ features
found = torch.cosine_similarity(features[:, None], words, dim=-1)
"""
TOLD = COSINES + "print(torch.backends.cpu.get_cpu_capability(), json.dumps(found.tolist()))"


def test_decimals_or_digits_are_kept_as_declared():
    frame = pd.DataFrame({"token": [0, 1], "value": [-0.00001, 0.12349], "word": ["a", "b"]})
    assert rounding.rounded(NAME, frame)["value"].astype(str).tolist() == ["0.0", "0.123"]
    assert rounding.rounded(NAME, frame)[["token", "word"]].equals(frame[["token", "word"]])
    sizes = [4.22784e-07, 0.0, -158695.0, 0.99999]
    assert rounding.rounded("10_alignment", sizes).tolist() == [4.23e-07, 0.0, -159000.0, 1.0]
    assert rounding.rounded("11_retention", sizes).tolist() == sizes


@pytest.mark.parametrize(
    ("figure", "one", "other", "same"),
    [
        (NAME, 0.123, 0.124, True),
        (NAME, 0.123, 0.125, False),
        (NAME, -0.001, 0.0, True),
        ("10_alignment", 4.22e-07, 4.23e-07, True),
        ("10_alignment", 4.21e-07, 4.23e-07, False),
        ("10_alignment", 0.999, 1.0, True),
        ("10_alignment", 0.0, 0.0, True),
    ],
)
def test_one_unit_of_the_last_digit_kept_is_no_difference(figure, one, other, same):
    assert rounding.recurs(figure, one, other) == rounding.recurs(figure, other, one) == same


def test_committed_figures_hold_the_digits_declared_and_their_notebooks_draw_them():
    code = "".join(path.read_text(encoding="utf-8") for path in NOTEBOOKS.glob("*.ipynb"))
    for figure in rounding.FIGURES:
        frame = pd.read_csv(FIGURES / f"{figure}.csv")
        assert rounding.rounded(figure, frame).equals(frame)
        assert f'rounded(\\"{figure}\\"' in code


def test_bounds_of_intervals_do_not_hang_on_the_order_of_float32_sums(monkeypatch):
    generator = np.random.default_rng(0)
    values, image = generator.random(300), np.arange(300)
    found = stats.mean_interval(values, image)
    counts = stats._resampled_counts(300, 0)
    order = generator.permutation(300)
    monkeypatch.setattr(stats, "_resampled_counts", lambda clusters, seed: counts[:, order])
    again = stats.mean_interval(values[order], image)  # the same resamples, added in another order
    assert (again.low, again.high) == pytest.approx((found.low, found.high), abs=1e-12)


def test_verify_holds_for_a_figure_computed_on_another_kind_of_processor(tmp_path):
    here = {}
    exec(COSINES, here)
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default"}  # as a processor without wide instructions
    words = [sys.executable, "-c", TOLD]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    capability, told = done.stdout.split(maxsplit=1)
    there = np.array(json.loads(told))
    if capability == torch.backends.cpu.get_cpu_capability():
        pytest.skip("this processor has no wide instructions to go without")
    ours = here["found"].double().numpy()
    assert (ours != there).any()
    for name, values in (("ours", ours), ("theirs", there)):
        save(Figure(), NAME, pd.DataFrame(values).rename(columns=str), tmp_path / name)
    one, other = (tmp_path / name / f"{NAME}.csv" for name in ("ours", "theirs"))
    assert verify.compare_tables(one, other, f"figures/{NAME}.csv") == []
    cells = pd.read_csv(one), pd.read_csv(other)
    assert (cells[0] != cells[1]).to_numpy().mean() < 0.01  # and nearly all are the same
