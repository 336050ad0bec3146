"""The baselines: random, pooling, the middle, and the oracle."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lib.pruning import methods
from lib.pruning.methods import Cues
from testkit.builders import chosen, make_cues


def test_random_depends_on_its_seed_and_the_row_seed_alone():
    cues = make_cues(13)
    first, second = (methods.make("random", keep=9, seed=seed) for seed in (0, 1))
    assert chosen(first, cues) != chosen(second, cues)
    same = dataclasses.replace(cues, seeds=[7, 7])
    kept = chosen(first, same)
    assert kept[0] == kept[1]
    assert kept == chosen(first, dataclasses.replace(make_cues(14), seeds=[7, 7]))
    with pytest.raises(ValueError, match="seeds must hold one int a row: 2 rows, 1 seeds"):
        first.choose(dataclasses.replace(cues, seeds=[7]))


def test_oracle_keeps_the_evidence_first():
    cues = make_cues(15)
    for keep in (1, 5, 20, 36):
        kept = methods.make("oracle", keep=keep).choose(cues).kept
        held = cues.evidence.gather(1, kept).sum(1)
        assert torch.equal(held, cues.evidence.sum(1).clamp_max(keep))


def test_oracle_thins_evidence_and_fills_the_rest_evenly():
    grid = (12, 12)
    left = (torch.arange(144) % 12 < 6)[None]
    cues = Cues(grid=grid, features=torch.zeros(1, 144, 1), evidence=left)
    thin = methods.make("oracle", keep=18).choose(cues).kept[0]
    assert (thin % 12 < 6).all()
    assert abs((thin // 12 < 6).sum().item() - 9) <= 3
    full = methods.make("oracle", keep=90).choose(cues).kept[0]
    extra = full[full % 12 >= 6]
    assert len(extra) == 18
    assert abs((extra // 12 < 6).sum().item() - 9) <= 3


def test_pooling_averages_windows():
    cues = make_cues(7)
    choice = methods.make("pool", keep=9).choose(cues)
    windows = cues.features.reshape(2, 3, 2, 3, 2, 8).mean((2, 4)).reshape(2, 9, 8)
    torch.testing.assert_close(choice.features, windows, atol=1e-6, rtol=0)


def test_centre_crop_is_the_middle():
    assert chosen(methods.make("centre_crop", keep=4), make_cues())[0] == [14, 15, 20, 21]
