"""The greedy selections against brute force, and their memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lib.pruning import methods, selection
from testkit import transcriptions
from testkit.builders import example


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("tokens", "keep"), [(1, 1), (2, 1), (12, 5), (25, 12)])
def test_diverse_choices_equal_brute_force(seed, tokens, keep):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, tokens, 40, generator=generator)
    relevance = 0.2 + torch.rand(2, tokens, generator=generator)
    spread = selection.max_min(features, keep, order="picked")
    likely = selection.dpp_map(relevance, features, keep, order="picked")
    for row in range(2):
        assert spread[row].tolist() == transcriptions.max_min(features[row].numpy(), keep)
        expected = transcriptions.dpp_map(relevance[row].numpy(), features[row].numpy(), keep)
        assert likely[row].tolist() == expected


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
