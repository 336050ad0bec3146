"""Adaptive suppression against its slow transcription."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.pruning import selection
from lib.study.parity import oracles
from testkit.builders import example

few = settings(max_examples=25, deadline=None)
grids = st.tuples(st.integers(1, 6), st.integers(1, 6))


@pytest.mark.parametrize("grid", [(6, 6), (4, 9), (1, 20), (13, 2), (12, 12)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"radius": 2.5, "sigma_distance": 0.8, "sigma_similarity": 0.3},
        {"radius": 0.0},
        {"radius": 100.0, "sigma_distance": 4.0, "sigma_similarity": 0.5},
    ],
)
def test_adaptive_nms_picks_as_the_released_rule(grid, options):
    tokens = math.prod(grid)
    keep = max(1, tokens // 3)
    scores, features = example(tokens, 3, tokens)
    picked = selection.adaptive_nms(scores, features, grid, keep, order="picked", **options)
    raster = selection.adaptive_nms(scores, features, grid, keep, **options)
    for row in range(3):
        expected = oracles.adaptive_nms(scores[row].numpy(), features[row].numpy(), grid, keep, **options)
        assert picked[row].tolist() == expected
        assert raster[row].tolist() == sorted(expected)


def test_adaptive_nms_at_the_published_size():
    scores, features = example(7, 1, 576, width=32)
    expected = oracles.adaptive_nms(scores[0].numpy(), features[0].numpy(), (24, 24), 57)
    assert selection.adaptive_nms(scores, features, (24, 24), 0.1, order="picked")[0].tolist() == expected


@few
@given(seed=st.integers(0, 10_000), grid=grids, data=st.data())
def test_adaptive_nms_with_cues_switched_off(seed, grid, data):
    tokens = math.prod(grid)
    keep = data.draw(st.integers(1, tokens))
    scores, features = example(seed, 1, tokens)
    row = scores[0].numpy(), features[0].numpy(), grid, keep
    alike = selection.adaptive_nms(
        scores, features, grid, keep, radius=math.inf, sigma_distance=math.inf, order="picked"
    )
    assert alike[0].tolist() == oracles.adaptive_nms(*row, radius=99, sigma_distance=1e9)
    near = selection.adaptive_nms(scores, None, grid, keep, sigma_similarity=math.inf, order="picked")
    assert near[0].tolist() == oracles.adaptive_nms(*row, sigma_similarity=1e9)


@few
@given(seed=st.integers(0, 10_000), grid=grids, data=st.data())
def test_adaptive_nms_turns_with_the_grid(seed, grid, data):
    tokens = math.prod(grid)
    keep = data.draw(st.integers(1, tokens))
    scores, features = example(seed, 1, tokens)
    turned = torch.arange(tokens).view(grid).T.flatten()  # turned[new position] = old position
    straight = selection.adaptive_nms(scores, features, grid, keep, order="picked")
    sideways = selection.adaptive_nms(
        scores[:, turned], features[:, turned], grid[::-1], keep, order="picked"
    )
    assert turned[sideways[0]].tolist() == straight[0].tolist()


def test_adaptive_nms_never_repeats_where_few_scores_are_positive():
    scores = torch.zeros(1, 36)
    scores[0, 20] = 1.0
    kept = selection.adaptive_nms(scores, torch.ones(1, 36, 2), (6, 6), 5, order="picked")
    assert kept.tolist() == [[20, 0, 1, 2, 3]]


@pytest.mark.parametrize("name", ["radius", "sigma_distance", "sigma_similarity"])
@pytest.mark.parametrize("value", [-1.0, math.nan, True, "1", None])
def test_bad_widths_are_refused(name, value):
    scores, features = example(0, 1, 9)
    with pytest.raises(ValueError, match=name):
        selection.adaptive_nms(scores, features, (3, 3), 2, **{name: value})


@pytest.mark.parametrize("sigma", [1e-30, 1e-200])
def test_a_vanishing_width_is_a_width(sigma):
    # Only exact twins fade; nothing becomes NaN.
    scores = torch.tensor([[1.0, 0.9, 0.8, 0.7]])
    features = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    whole = {"radius": math.inf, "sigma_distance": math.inf, "order": "picked"}
    picked = selection.adaptive_nms(scores, features, (2, 2), 4, sigma_similarity=sigma, **whole)
    assert picked.tolist() == [[0, 2, 3, 1]]
    near = selection.adaptive_nms(scores, features, (2, 2), 4, sigma_distance=sigma, order="picked")
    assert near.tolist() == [[0, 1, 2, 3]]
