"""The kernels' logic on a CPU, run by Triton's interpreter; `test_kernels.py` starts pytest on this file.

Triton reads TRITON_INTERPRET once, when it is first imported, and other tests may import it for other reasons: hence a
process of its own. The interpreter multiplies the bits of bfloat16 as if they were integers, so that dtype is left to
tests on a device; float16 takes the same path through the kernel.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import one_hot

from lib.pruning import kernels, suppression
from testkit.builders import example

PAPER = {"radius": 5.0, "sigma_distance": 1.5, "sigma_similarity": 0.05}
# Grid, batch, tokens kept. The interpreter takes some 20 ms a pick and sample, so few cases are large.
CASES = [
    ((24, 24), 1, 57),
    ((12, 12), 3, 14),
    ((7, 13), 1, 30),
    ((4, 6), 3, 24),
    ((1, 9), 1, 9),
    ((9, 1), 1, 4),
    ((1, 1), 1, 1),
]


def agree(scores, features, grid, count, **options):
    """Compare with the torch path, and return the picks in order."""
    options = {**PAPER, **options}
    wanted = suppression.adaptive_nms(scores, features, grid, count, order="picked", **options)
    picked = kernels.adaptive_nms(scores, features, grid, count, order="picked", **options)
    assert picked.dtype == torch.int64
    assert picked.tolist() == wanted.tolist()
    return picked


@pytest.mark.parametrize(("grid", "batch", "count"), CASES)
def test_distinct_scores(grid, batch, count):
    tokens = math.prod(grid)
    scores, features = example(tokens, batch, tokens, width=40)
    picked = agree(scores, features, grid, count)
    raster = kernels.adaptive_nms(scores, features, grid, count, **PAPER)
    assert raster.dtype == torch.int64
    assert raster.tolist() == picked.sort(-1).values.tolist()


@pytest.mark.parametrize("grid", [(12, 12), (7, 13), (1, 9)])
@pytest.mark.parametrize(
    "options",
    [
        {"radius": 2.5, "sigma_distance": 0.8, "sigma_similarity": 0.3},
        {"radius": 0.0},
        {"radius": 7, "sigma_distance": 1e-30},
        {"radius": 3.0, "sigma_distance": math.inf, "sigma_similarity": 0.3},
        {"radius": 100.0, "sigma_distance": 4.0, "sigma_similarity": 0.5},
        {"radius": math.inf, "sigma_similarity": 0.3},
        {"sigma_similarity": math.inf},
    ],
)
def test_every_width(grid, options):
    tokens = math.prod(grid)
    scores, features = example(tokens + 1, 2, tokens, width=24)
    if options.get("sigma_similarity") == math.inf:
        features = None
    agree(scores, features, grid, max(1, tokens // 3), **options)


@pytest.mark.parametrize(("grid", "batch", "count"), CASES)
def test_ties_go_to_the_lower_position(grid, batch, count):
    tokens = math.prod(grid)
    generator = torch.Generator().manual_seed(tokens)
    random = torch.rand(batch, tokens, generator=generator)
    flat = torch.ones(batch, tokens)
    equal = torch.ones(batch, tokens, 20)
    hot = one_hot(torch.randint(5, (batch, tokens), generator=generator), 20).float()
    pairs = torch.arange(tokens) // 2
    twins = torch.randn(batch, tokens, 20, generator=generator)[:, pairs]
    agree(flat, equal, grid, count)
    agree(0 * flat, equal, grid, count)
    agree(flat, 0 * equal, grid, count)
    agree(random, equal, grid, count)
    agree(flat, hot, grid, count)
    agree((3 * random).floor(), hot, grid, count)
    agree(random[:, pairs], twins, grid, count)


def test_all_zero_means_lowest_first_and_never_twice():
    zeros = torch.zeros(2, 36)
    zeros[1, 20] = 1.0
    picked = agree(zeros, torch.ones(2, 36, 4), (6, 6), 36)
    assert picked.tolist() == [list(range(36)), [20, *(place for place in range(36) if place != 20)]]


def test_zero_has_no_sign_and_scores_may_be_negative():
    signs = torch.tensor([[-0.0, 0.0, -0.0, 0.0, -1.0, -0.5]])
    picked = agree(signs, torch.eye(6)[None], (2, 3), 6)
    assert picked.tolist() == [[0, 1, 2, 3, 5, 4]]


@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # NumPy's, in the interpreter
def test_what_is_not_finite_never_leads_astray(bad):
    # On a device nobody has looked at the values yet: picks must be in range and distinct for the executor to refuse.
    scores, features = example(5, 2, 30)
    scores[:, ::3] = bad
    features[1, 4] = bad
    picked = kernels.adaptive_nms(scores, features, (5, 6), 30, **PAPER)
    assert picked.tolist() == 2 * [list(range(30))]


def test_a_row_does_not_depend_on_its_mates():
    scores, features = example(9, 3, 144, width=40)
    together = kernels.adaptive_nms(scores, features, (12, 12), 9, order="picked", **PAPER)
    for row in range(3):
        alone = kernels.adaptive_nms(
            scores[row : row + 1], features[row : row + 1], (12, 12), 9, order="picked", **PAPER
        )
        assert alone.tolist() == together[row : row + 1].tolist()


@pytest.mark.parametrize("width", [1, 33, 1030, 2500])
def test_any_feature_width(width):
    generator = torch.Generator().manual_seed(width)
    base = torch.randn(2, 1, width, generator=generator)
    features = base + 0.3 * torch.randn(2, 35, width, generator=generator)
    agree(torch.rand(2, 35, generator=generator), features, (5, 7), 20)


def test_short_floats_and_strided_views():
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(2, 1, 80, generator=generator) + 0.2 * torch.randn(2, 50, 80, generator=generator)
    scores = torch.rand(2, 80, generator=generator)
    agree(scores[:, 8:50:2], wide[:, 8:50:2].half(), (3, 7), 9)  # a cut through the sequence
    agree(scores[:, :42], wide[:, :42, ::2], (6, 7), 9)  # a cut through the features
    agree(scores[:, :42], wide.half().mT.contiguous().mT[:, :42], (6, 7), 9)


def test_products_fill_exactly_the_windows():
    rows, columns, down, across, squared = 7, 13, 3, 3, 9
    features = torch.randn(2, rows * columns, 10, generator=torch.Generator().manual_seed(1))
    products = kernels._window_products(features, columns, down, across, squared)
    full = features.double() @ features.double().mT
    for one in range(rows * columns):
        for other in range(rows * columns):
            fall, shift = other // columns - one // columns, other % columns - one % columns
            if fall**2 + shift**2 <= squared:
                place = (fall + down) * (2 * across + 1) + shift + across
                torch.testing.assert_close(
                    products[:, one, place].double(), full[:, one, other], atol=1e-5, rtol=1e-5
                )
