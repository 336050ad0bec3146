"""CDPruner: relevance over the pieces of a question, and the end of the kernel's rank."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lib.pruning import methods
from lib.pruning.methods import Needs
from lib.pruning.selection import dpp_map
from testkit.builders import chosen, make_cues


def test_relevance_is_the_mean_over_the_pieces():
    cues = make_cues(4)  # the last of five is padding
    task = methods.make("cdpruner", keep=7).choose(cues).scores["task"]
    for row in range(2):
        patches, pieces = (
            part / np.linalg.norm(part, axis=-1, keepdims=True)
            for part in (cues.patches[row].double().numpy(), cues.tokens[row, :4].double().numpy())
        )
        relevance = -(patches @ pieces.T).mean(1)
        spread = relevance.max() - relevance.min()
        np.testing.assert_allclose(
            task[row], (relevance - relevance.min() + 1e-6) / (spread + 1e-6), atol=1e-5
        )
    other = dataclasses.replace(cues, sentence=-cues.sentence)
    assert chosen(methods.make("cdpruner", keep=7), other) == chosen(methods.make("cdpruner", keep=7), cues)


def test_a_question_comes_in_pieces():
    wanted = Needs(patches="penultimate", text=True, long_text="pieces", projected=True)
    assert methods.make("cdpruner", keep=7).needs() == wanted


@pytest.mark.parametrize("rank", [2, 5])
def test_past_the_rank_the_lowest_positions_fill_up(rank):
    cues = make_cues(4, width=8)
    flat = cues.projected.clone()
    flat[..., rank:] = 0.0
    kept = chosen(methods.make("cdpruner", keep=rank + 3), dataclasses.replace(cues, projected=flat))
    first = dpp_map(methods.make("cdpruner", keep=rank).choose(cues).scores["task"], flat, rank)
    for row in range(2):
        filled = [place for place in range(36) if place not in first[row].tolist()][:3]
        assert kept[row] == sorted(first[row].tolist() + filled)
    assert torch.linalg.matrix_rank(flat).tolist() == [rank, rank]
