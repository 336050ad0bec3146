"""FastV and AdaptPrune against their transcriptions, and every cue and switch of them."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from lib.pruning import cues as cue
from lib.pruning import selection
from lib.pruning.methods import AdaptPrune, Cues, FastV, Needs
from lib.study.parity import oracles
from testkit import transcriptions
from testkit.builders import GRID, chosen, make_cues


def test_fastv_is_the_top_of_the_attention():
    cues = make_cues(7)
    mean = cues.attention.mean(1)
    assert chosen(FastV(keep=9), cues) == selection.top_k(mean, 9).tolist()
    assert FastV(keep=9).needs() == Needs(attention=True)


@pytest.mark.parametrize("grid", [(24, 24), (4, 9)])
def test_adaptprune_equals_its_transcription(grid):
    cues = make_cues(8, batch=1, grid=grid)
    method = AdaptPrune(keep=0.1)
    attention = cues.attention[0].double().numpy().mean(0)
    prior = transcriptions.centre_prior_24() if grid == (24, 24) else cue.centre_prior(grid).double().numpy()
    picks = oracles.adaptive_nms(attention * prior, cues.keys[0].numpy(), grid, int(0.1 * math.prod(grid)))
    assert chosen(method, cues) == [sorted(picks)]


def test_adaptprune_without_its_cues_is_fastv():
    cues = make_cues(9)
    bare = AdaptPrune(keep=9, centre=False, spatial=False, similarity=False)
    assert chosen(bare, cues) == chosen(FastV(keep=9), cues)
    assert bare.needs() == FastV(keep=9).needs()
    assert (bare.layer, bare.positions) == (FastV(keep=9).layer, FastV(keep=9).positions)


def corner_or_middle() -> Cues:
    """Even attention, a little higher in one corner."""
    attention = torch.full((1, 1, 36), 0.5)
    attention[0, 0, 0] = 0.6
    keys = torch.eye(36)[None]
    return Cues(grid=GRID, features=keys, attention=attention, keys=keys)


def test_centre_prior_outweighs_a_corner():
    cues = corner_or_middle()
    assert chosen(AdaptPrune(keep=1), cues) == [[14]]
    assert chosen(AdaptPrune(keep=1, centre=False), cues) == [[0]]
    assert chosen(AdaptPrune(keep=1, sigma_centre=1e6), cues) == [[0]]


def twins() -> Cues:
    """Position 0 leads; 1 is its twin next door, 35 its twin far away, 2 a stranger near by."""
    attention = torch.full((1, 1, 36), 0.01)
    attention[0, 0, [0, 1, 35, 2]] = torch.tensor([1.0, 0.9, 0.8, 0.7])
    keys = torch.eye(36)[None].clone()
    keys[0, [1, 35]] = keys[0, 0].clone()
    return Cues(grid=GRID, features=keys, attention=attention, keys=keys)


def test_each_half_of_the_suppression_is_needed():
    cues = twins()
    arm = AdaptPrune(keep=2, centre=False)
    # Near and alike fades: 0.9 * (1 - 0.80) falls below the far twin. Far twins stay, strangers stay.
    assert chosen(arm, cues) == [[0, 35]]
    assert chosen(dataclasses.replace(arm, keep=3), cues) == [[0, 2, 35]]
    # Likeness alone also fades the far twin: the stranger comes next.
    assert chosen(dataclasses.replace(arm, spatial=False), cues) == [[0, 2]]
    # Distance alone also fades the stranger (0.7 * 0.59 = 0.41 stays above 0.9 * 0.2 = 0.18).
    assert chosen(dataclasses.replace(arm, similarity=False), cues) == [[0, 35]]
    stranger_first = dataclasses.replace(cues, attention=cues.attention.index_fill(-1, torch.tensor(35), 0.5))
    assert chosen(arm, stranger_first) == [[0, 2]]
    assert chosen(dataclasses.replace(arm, similarity=False), stranger_first) == [[0, 35]]
    # Neither: attention alone.
    assert chosen(dataclasses.replace(arm, spatial=False, similarity=False), cues) == [[0, 1]]


@pytest.mark.parametrize(
    "switch",
    [
        {"centre": False},
        {"spatial": False},
        {"similarity": False},
        {"sigma_centre": 3.0},
        {"radius": 1.0},
        {"sigma_distance": 0.3},
        {"sigma_similarity": 0.005},
        {"scale_to_grid": True},
    ],
)
def test_every_adaptprune_switch_reaches_the_choice(switch):
    cues = make_cues(10, batch=4)
    assert chosen(AdaptPrune(keep=12, **switch), cues) != chosen(AdaptPrune(keep=12), cues)


def test_scaling_to_the_grid_changes_nothing_at_24():
    cues = make_cues(11, batch=1, grid=(24, 24))
    assert chosen(AdaptPrune(keep=57, scale_to_grid=True), cues) == chosen(AdaptPrune(keep=57), cues)


def test_adaptprune_asks_for_keys_only_where_it_compares_them():
    assert AdaptPrune(keep=4).needs() == Needs(attention=True, keys="raw")
    assert AdaptPrune(keep=4, keys="normed").needs().keys == "normed"
    assert AdaptPrune(keep=4, similarity=False).needs().keys is None
