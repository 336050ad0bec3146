"""The selections: equal to their transcriptions, exact in count, free of order accidents, and strict."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.pruning import selection
from lib.study.parity import oracles
from testkit import transcriptions
from testkit.builders import all_selections, example

few = settings(max_examples=25, deadline=None)
grids = st.tuples(st.integers(1, 6), st.integers(1, 6))


# Budget


@pytest.mark.parametrize(
    ("keep", "tokens", "rounding", "expected"),
    [
        (0.1, 576, "floor", 57),
        (1 / 9, 576, "round", 64),
        (0.111, 576, "round", 64),
        (0.222, 576, "round", 128),
        (0.333, 576, "round", 192),
        (0.1, 576, "ceil", 58),
        (1.0, 7, "floor", 7),
        (1, 7, "ceil", 1),
        (7, 7, "floor", 7),
        (np.int64(3), 7, "floor", 3),
        (np.float64(0.5), 7, "floor", 3),
    ],
)
def test_budget(keep, tokens, rounding, expected):
    count = selection.budget(keep, tokens, rounding)
    assert count == expected
    assert type(count) is int


@pytest.mark.parametrize(
    "keep", [0, -1, 10, True, False, 0.0, -0.5, 1.5, 0.01, math.nan, math.inf, "3", None]
)
def test_bad_budgets_are_refused_everywhere(keep):
    with pytest.raises(ValueError, match="keep"):
        selection.budget(keep, 9)
    scores, features = example(0, 1, 9)
    calls = (
        lambda: selection.top_k(scores, keep),
        lambda: selection.split_top_k(scores, scores, keep),
        lambda: selection.adaptive_nms(scores, features, (3, 3), keep),
        lambda: selection.max_min(features, keep),
        lambda: selection.dpp_map(scores, features, keep),
        lambda: selection.random_choice([1], 9, keep),
        lambda: selection.uniform_grid((3, 3), keep),
    )
    for call in calls:
        with pytest.raises(ValueError, match="keep"):
            call()


def test_budget_names_the_value():
    with pytest.raises(ValueError, match=r"keep=10 asks for 10 of 9 tokens"):
        selection.budget(10, 9)
    with pytest.raises(ValueError, match=r"keep=0.01 asks for 0 of 9 tokens"):
        selection.budget(0.01, 9)
    with pytest.raises(ValueError, match="rounding must be one of floor, round, ceil; got 'up'"):
        selection.budget(0.5, 9, "up")
    with pytest.raises(ValueError, match="tokens must be at least 1, got 0"):
        selection.budget(1, 0)


# Equality with the transcriptions


@few
@given(seed=st.integers(0, 10_000), tokens=st.integers(1, 30), data=st.data())
def test_top_k_and_split(seed, tokens, data):
    keep = data.draw(st.integers(1, tokens))
    share = data.draw(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
    # Few distinct values: most draws hold ties.
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randint(4, (2, 2, tokens), generator=generator).float()
    top, split = selection.top_k(first, keep), selection.split_top_k(first, second, keep, share)
    for row in range(2):
        assert top[row].tolist() == sorted(oracles.top_k(first[row].numpy(), keep))
        expected = transcriptions.split_top_k(first[row].numpy(), second[row].numpy(), keep, share)
        assert split[row].tolist() == expected


# Properties


@few
@given(seed=st.integers(0, 10_000), grid=grids, data=st.data())
def test_what_every_selection_keeps(seed, grid, data):
    tokens = math.prod(grid)
    keep = data.draw(st.integers(1, tokens))
    scores, features = example(seed, 3, tokens)
    # Repeated tokens and flat scores: the input that makes a careless loop repeat itself.
    scores[1], features[1] = 0.5, 1.0
    scores[2, : tokens // 2] = 0.0
    together = all_selections(scores, features, grid, keep)
    again = all_selections(scores.clone(), features.clone(), grid, keep)
    alone = all_selections(scores[1:2], features[1:2], grid, keep)
    for name, kept in together.items():
        assert kept.shape == (3, keep), name
        assert kept.dtype == torch.int64, name
        assert ((kept >= 0) & (kept < tokens)).all(), name
        assert (kept.diff(dim=-1) > 0).all(), name
        assert torch.equal(kept, again[name]), name
        assert torch.equal(kept[1:2], alone[name]), name
        if keep == tokens:
            assert torch.equal(kept, torch.arange(tokens).expand(3, -1)), name


def test_ties_go_to_the_lower_position():
    flat, same = torch.ones(1, 12), torch.ones(1, 12, 4)
    assert selection.top_k(flat, 3).tolist() == [[0, 1, 2]]
    assert selection.split_top_k(flat, flat, 4).tolist() == [[0, 1, 2, 3]]
    assert selection.max_min(same, 3).tolist() == [[0, 1, 2]]
    assert selection.dpp_map(flat, same, 3).tolist() == [[0, 1, 2]]
    picked = selection.adaptive_nms(torch.zeros(1, 12), same, (3, 4), 12, order="picked")
    assert picked.tolist() == [list(range(12))]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_dtype_is_chosen_in_float32(dtype):
    scores, features = (x.to(dtype) for x in example(3, 2, 36))
    mine = all_selections(scores, features, (6, 6), 12)
    wide = all_selections(scores.float(), features.float(), (6, 6), 12)
    for name, kept in mine.items():
        assert torch.equal(kept, wide[name]), name


def test_inputs_are_left_alone():
    scores, features = example(4, 2, 36)
    before = scores.clone(), features.clone()
    all_selections(scores, features, (6, 6), 12)
    assert torch.equal(scores, before[0])
    assert torch.equal(features, before[1])


def test_scores_under_gradient_are_accepted():
    scores, features = (x.requires_grad_() for x in example(5, 1, 16))
    for kept in all_selections(scores, features, (4, 4), 4).values():
        assert not kept.requires_grad


def test_no_selection_reads_the_device():
    # Meta tensors hold no values: any read-back, or a shape that depends on data, raises.
    scores, features = (x.to("meta") for x in example(0, 2, 36))
    for name, kept in all_selections(scores, features, (6, 6), 9).items():
        assert kept.device.type == "meta", name
        assert kept.shape == (2, 9), name


# Selections that read no image


@few
@given(grid=st.tuples(st.integers(1, 15), st.integers(1, 15)), data=st.data())
def test_uniform_grid_is_exact_and_spread(grid, data):
    tokens = math.prod(grid)
    keep = data.draw(st.integers(1, tokens))
    kept = selection.uniform_grid(grid, keep)
    assert kept.dtype == torch.int64
    assert len(kept) == keep
    assert (kept.diff() > 0).all()
    assert kept[0] >= 0
    assert kept[-1] < tokens
    # Upper and lower half hold as much as one used row can tip.
    per_row = kept.div(grid[1], rounding_mode="floor").bincount(minlength=grid[0])
    used = per_row[per_row > 0]
    assert used.max() - used.min() <= 1


def test_uniform_grid_known_cases():
    assert selection.uniform_grid((4, 4), 4).tolist() == [5, 7, 13, 15]
    assert selection.uniform_grid((1, 8), 2).tolist() == [2, 6]
    assert selection.uniform_grid((3, 3), 9).tolist() == list(range(9))


@pytest.mark.parametrize("grid", [(12, 12), (24, 24), (7, 10)])
def test_spread_priority_thins_every_region_evenly(grid):
    priority = selection.spread_priority(grid)
    assert priority.unique().numel() == math.prod(grid)
    assert ((priority >= 0) & (priority < 1)).all()
    quarter = priority.view(grid) > 0.75
    rows, columns = grid[0] // 2, grid[1] // 2
    shares = [
        part.float().mean().item()
        for half in (quarter[:rows], quarter[rows:])
        for part in (half[:, :columns], half[:, columns:])
    ]
    assert max(shares) - min(shares) < 0.15


def test_random_choice_follows_the_row_seed_alone():
    together = selection.random_choice([3, 4, 3], 30, 10)
    assert torch.equal(together[0], together[2])
    assert not torch.equal(together[0], together[1])
    assert torch.equal(together[1:2], selection.random_choice([4], 30, 10))
    assert (together.diff(dim=-1) > 0).all()
    assert set(selection.random_choice([3], 30, 4)[0].tolist()) <= set(together[0].tolist())
    assert torch.equal(selection.random_choice([-1], 30, 30)[0], torch.arange(30))


def test_random_choice_is_uniform():
    kept = selection.random_choice(range(2000), 10, 3)
    share = kept.flatten().bincount(minlength=10) / 2000
    assert (share - 0.3).abs().max() < 0.05


# Refusals


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_refused(bad):
    scores, features = example(0, 1, 9)
    sick, sick_features = scores.clone(), features.clone()
    sick[0, 4] = bad
    sick_features[0, 2, 1] = bad
    calls = {
        "scores must be finite: 1 of 9": [
            lambda: selection.top_k(sick, 2),
            lambda: selection.adaptive_nms(sick, features, (3, 3), 2),
        ],
        "first must be finite": [lambda: selection.split_top_k(sick, scores, 2)],
        "second must be finite": [lambda: selection.split_top_k(scores, sick, 2)],
        "relevance must be finite": [lambda: selection.dpp_map(sick, features, 2)],
        "features must be finite": [
            lambda: selection.adaptive_nms(scores, sick_features, (3, 3), 2),
            lambda: selection.max_min(sick_features, 2),
            lambda: selection.dpp_map(scores, sick_features, 2),
        ],
    }
    for message, group in calls.items():
        for call in group:
            with pytest.raises(ValueError, match=message):
                call()


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ((3, 4), r"grid \(3, 4\) has 12 positions but there are 9 tokens"),
        ((0, 9), "two positive ints"),
        ((-3, -3), "two positive ints"),
        ((3.0, 3), "two positive ints"),
        ((True, 9), "two positive ints"),
        ((3, 3, 1), r"\(rows, columns\)"),
        (9, r"\(rows, columns\)"),
        (None, r"\(rows, columns\)"),
    ],
)
def test_bad_grids_are_refused(grid, message):
    scores, features = example(0, 1, 9)
    with pytest.raises(ValueError, match=message):
        selection.adaptive_nms(scores, features, grid, 2)
    if math.prod(grid if isinstance(grid, tuple) else (0,)) != 12:
        with pytest.raises(ValueError, match="grid"):
            selection.uniform_grid(grid, 2)


def test_other_refusals():
    scores, features = example(0, 2, 9)
    for sigma in ("sigma_distance", "sigma_similarity"):
        with pytest.raises(ValueError, match=f"{sigma} must be above 0.0, got 0"):
            selection.adaptive_nms(scores, features, (3, 3), 2, **{sigma: 0})
    for share in (-0.1, 1.1, math.nan, True):
        with pytest.raises(ValueError, match="share must be"):
            selection.split_top_k(scores, scores, 2, share)
    for call in (
        lambda: selection.adaptive_nms(scores, features, (3, 3), 2, order="best"),
        lambda: selection.max_min(features, 2, order="best"),
        lambda: selection.dpp_map(scores, features, 2, order="best"),
    ):
        with pytest.raises(ValueError, match="order must be one of raster, picked; got 'best'"):
            call()
    with pytest.raises(ValueError, match=r"scores must have shape \[B, N\], got \[9\]"):
        selection.top_k(scores[0], 2)
    with pytest.raises(ValueError, match=r"second must have shape \[B=2, N=9\], got \[1, 9\]"):
        selection.split_top_k(scores, scores[:1], 2)
    with pytest.raises(ValueError, match=r"features must have shape \[B=2, N=9, D\], got \[2, 8, 6\]"):
        selection.adaptive_nms(scores, features[:, :8], (3, 3), 2)
    with pytest.raises(ValueError, match="features must be given"):
        selection.adaptive_nms(scores, None, (3, 3), 2)
    with pytest.raises(ValueError, match=r"features must have shape \[B=2, N=9, D\], got \[1, 9, 6\]"):
        selection.dpp_map(scores, features[:1], 2)
    with pytest.raises(ValueError, match=r"features must have shape \[B, N, D\], got \[2, 9\]"):
        selection.max_min(scores, 2)
    with pytest.raises(ValueError, match="seeds must hold one int a row"):
        selection.random_choice([], 9, 2)
    with pytest.raises(ValueError, match=r"seeds must be an int, got 1\.5"):
        selection.random_choice([1.5], 9, 2)
    with pytest.raises(ValueError, match="scores must be a tensor"):
        selection.top_k([[1.0]], 1)


def test_scores_must_be_real_numbers():
    scores, features = example(0, 1, 9)
    for name, call in (
        ("scores", lambda: selection.top_k(scores + 1j, 2)),
        ("features", lambda: selection.max_min(features + 1j, 2)),
        ("relevance", lambda: selection.dpp_map(scores + 1j, features, 2)),
    ):
        with pytest.raises(ValueError, match=f"{name} must be real, got torch.complex64"):
            call()


def test_large_finite_values_are_no_infinity():
    # Their sum overflows, they do not.
    scores = torch.full((1, 9), 6e4, dtype=torch.float16)
    assert selection.top_k(scores, 2).tolist() == [[0, 1]]
    scores = torch.full((1, 9), 3e38)
    assert selection.top_k(scores, 2).tolist() == [[0, 1]]
    assert selection.adaptive_nms(
        scores / 3e38, None, (3, 3), 2, radius=1e200, sigma_similarity=math.inf
    ).shape == (1, 2)
