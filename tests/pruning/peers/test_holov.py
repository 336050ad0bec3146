"""HoloV: crops, seats, and attention inside a crop."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.pruning import methods
from lib.pruning.methods import Cues
from lib.pruning.peers import holov
from testkit.builders import chosen, make_cues


def cues_of(attention: list[float], features: torch.Tensor | None = None) -> Cues:
    count = len(attention)
    features = torch.eye(count)[None] if features is None else features
    return Cues(grid=(1, count), features=features, saliency=torch.tensor([[attention]]), projected=features)


def test_leftover_seats_go_to_the_heaviest_crops():
    # 2 seats over weights .45 and .30 are 1.2 and .8: one each rounded down is 1 and 0, and the heavier takes the other.
    # The largest remainder would give it to the second crop.
    assert chosen(methods.make("holov", keep=2, crops=2), cues_of([0.25, 0.20, 0.16, 0.14])) == [[0, 1]]


@pytest.mark.parametrize(
    ("weight", "total", "given"),
    [
        ([1.0, 1.0, 1.0, 1.0], 12, [3, 3, 3, 3]),
        ([1.0, 1.0, 1.0, 1.0], 14, [4, 4, 3, 3]),  # ties to the earlier crop
        ([100.0, 1.0, 1.0, 2.0], 21, [21, 0, 0, 0]),
        (
            [5.0, 1.0, 3.0, 1.0],
            9,
            [5, 1, 3, 0],
        ),  # 4.5, .9, 2.7, .9: three left over, for the first three by weight
        ([0.0, 0.0, 0.0, 0.0], 5, [2, 1, 1, 1]),
        ([2e-38, 1e-38, 0.0, 0.0], 3, [2, 1, 0, 0]),
    ],
)
def test_seats(weight, total, given):
    assert holov.seats(torch.tensor([weight], dtype=torch.float64), total).tolist() == [given]


@pytest.mark.parametrize(
    ("tokens", "crops", "lengths"),
    [
        (12, 4, [3, 3, 3, 3]),
        (14, 4, [4, 4, 3, 3]),
        (3, 3, [1, 1, 1]),
        (5, 1, [5]),
        (576, 5, [116, 115, 115, 115, 115]),
    ],
)
def test_the_first_crops_are_one_larger(tokens, crops, lengths):
    seat, member, valid = holov.runs(tokens, crops, torch.device("cpu"))
    assert valid.sum(-1).tolist() == lengths
    assert member[valid].tolist() == list(range(tokens))
    assert member.flatten()[seat].tolist() == list(range(tokens))
    assert valid.flatten()[seat].all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), keep=st.integers(1, 36), crops=st.integers(1, 40))
def test_within_a_crop_attention_decides(seed, keep, crops):
    cues = make_cues(seed)
    kept = methods.make("holov", keep=keep, crops=crops).choose(cues).kept
    parts = np.array_split(np.arange(36), min(crops, 36))
    saliency = cues.saliency.mean(1).numpy()
    for row in range(2):
        mine = [np.intersect1d(kept[row].numpy(), part) for part in parts]
        assert sum(map(len, mine)) == keep
        for part, taken in zip(parts, mine, strict=True):
            best = part[np.argsort(-saliency[row, part], kind="stable")][: len(taken)]
            assert sorted(best) == taken.tolist()


def test_what_a_full_crop_cannot_take_goes_to_the_most_salient_others():
    # All four seats belong to the first crop of two; the released code would keep two tokens.
    attention = [90.0, 80.0, 1e-6, 2e-6, 4e-6, 3e-6]
    assert chosen(methods.make("holov", keep=4, crops=3), cues_of(attention)) == [[0, 1, 4, 5]]


def test_variety_cancels_out():
    cues = make_cues(3)
    flat = dataclasses.replace(cues, projected=torch.ones_like(cues.projected))
    for keep in (4, 9, 20):
        method = methods.make("holov", keep=keep, crops=4)
        assert chosen(method, cues) == chosen(method, flat)
        assert chosen(method, cues) == chosen(dataclasses.replace(method, variety_weight=0.0), cues)
    # It moves what a token weighs, and no crop's mean: 1090 times the mean of its attention, but for 1e-6.
    score = methods.make("holov", keep=9, crops=4).choose(cues).scores["score"].view(2, 4, 9)
    saliency = cues.saliency.mean(1).view(2, 4, 9)
    torch.testing.assert_close(score.mean(-1), 1090 * saliency.mean(-1), rtol=1e-4, atol=0)
    assert not torch.allclose(score, 1090 * saliency, rtol=1e-2)


def test_crops_by_the_budget():
    cues = make_cues(5, grid=(24, 24))
    for keep, crops in ((64, 16), (128, 8), (192, 5), (576, 1)):
        by_budget = methods.make("holov", keep=keep, crops=None)
        assert chosen(by_budget, cues) == chosen(methods.make("holov", keep=keep, crops=crops), cues)
    assert methods.make("holov", keep=4).crops == 16
    with pytest.raises(ValueError, match="crops must be at least 1, got 0"):
        methods.make("holov", keep=4, crops=0)
