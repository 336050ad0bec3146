"""The greedy selections against their slow transcriptions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from lib.pruning import methods, selection
from lib.study.scenes import oracles
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


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("tokens", "keep"), [(1, 1), (2, 1), (12, 5), (25, 12)])
def test_diverse_choices_equal_brute_force(seed, tokens, keep):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, tokens, 40, generator=generator)
    relevance = 0.2 + torch.rand(2, tokens, generator=generator)
    spread = selection.max_min(features, keep, order="picked")
    likely = selection.dpp_map(relevance, features, keep, order="picked")
    for row in range(2):
        assert spread[row].tolist() == oracles.max_min(features[row].numpy(), keep)
        expected = oracles.dpp_map(relevance[row].numpy(), features[row].numpy(), keep)
        assert likely[row].tolist() == expected


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


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation gives."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        # A view may be expanded to any size without taking room: count what is stored.
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                size = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.elements = max(self.elements, size)
        return result


@pytest.mark.parametrize("width", [8, 32, 1024])
@pytest.mark.parametrize(
    "select",
    [
        lambda scores, features, grid: selection.adaptive_nms(scores, features, grid, 20),
        lambda scores, features, grid: selection.adaptive_nms(scores, features, grid, 20, radius=math.inf),
        lambda scores, features, grid: selection.max_min(features, 20),
        lambda scores, features, grid: selection.dpp_map(scores, features, 20),
        lambda scores, features, grid: (
            methods.make("holov", keep=20)
            .choose(methods.Cues(grid=grid, features=features, saliency=scores[:, None], projected=features))
            .kept
        ),
    ],
    ids=["nms", "nms, no window", "max_min", "dpp_map", "holov"],
)
def test_memory_is_linear_in_the_tokens(select, width):
    def largest(grid):
        scores, features = (x.to("meta") for x in example(0, 1, math.prod(grid), width))
        with LargestTensor() as seen:
            select(scores, features, grid)
        return seen.elements

    tokens = 40 * 40
    # A window holds 81 cells, a block of products 64 rows, a crop a sixteenth of the tokens; a table of all pairs is
    # made only where its rows are no longer than four rows of features.
    assert largest((40, 40)) <= tokens * max(4 * width, 128)


@pytest.mark.parametrize("tokens", [1, 2, 20, 130, 200])
def test_rows_and_table_give_the_same_picks(tokens):
    scores, features = example(tokens, 2, tokens)
    features[0, tokens // 2] = features[0, 0]
    keep = max(1, tokens // 2)
    # Columns of zeros change no cosine; with many of them the table of all pairs is used instead of rows.
    padded = torch.nn.functional.pad(features, (0, tokens))
    for order in selection.ORDERS:
        assert torch.equal(selection.max_min(features, keep, order), selection.max_min(padded, keep, order))
        assert torch.equal(
            selection.dpp_map(scores, features, keep, order), selection.dpp_map(scores, padded, keep, order)
        )


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
