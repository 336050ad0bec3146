"""DART: who the pivots are, in which order they choose, and how the budget is shared."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lib.pruning import methods
from lib.pruning.base import Cues
from lib.pruning.methods import Dart, Needs
from testkit.builders import make_cues, row_of


def few(text_norm=1.0):
    """Four tokens with key norms 4, 1, 2 and 1.5, and one word."""
    return Cues(
        grid=(1, 4),
        features=torch.zeros(1, 4, 2),
        attended_keys=torch.tensor([[[4.0], [-1.0], [2.0], [1.5]]]),
        final_states=torch.tensor([[[1.0, 0.0], [0.9, 0.4], [0.0, 1.0], [-0.3, 1.0]]]),
        prompt_keys=torch.tensor([[[text_norm]]]),
        prompt_states=torch.tensor([[[-1.0, 0.2]]]),
        prompt_valid=torch.tensor([[True]]),
    )


@pytest.mark.parametrize("text_norm", [1.0, 9.0])
def test_words_pull_as_visual_pivots_do(text_norm):
    method = Dart(keep=3, pivots=1, text_pivots=1)
    assert method.needs() == Needs(attended_keys=True, final_states=True)
    assert method.choose(few(text_norm)).kept.tolist() == [[0, 1, 3]]
    assert dataclasses.replace(method, text_pivots=0).choose(few(text_norm)).kept.tolist() == [[0, 2, 3]]


def one_by_one(cues, row, keep, pivots=4, text_pivots=4, turns="norm"):
    """The rule in a loop over pivots and tokens: the tokens kept."""
    there = cues.prompt_valid[row].nonzero()[:, 0].tolist()
    norms = cues.attended_keys[row].double().abs().sum(-1).tolist()
    words = cues.prompt_keys[row].double().abs().sum(-1).tolist()
    first = sorted(range(len(norms)), key=lambda i: -norms[i])[: min(pivots, keep)]
    said = sorted(there, key=lambda t: -words[t])[:text_pivots]
    rows = [(norms[i], i, cues.final_states[row, i]) for i in first]
    rows += [(words[t], len(norms) + t, cues.prompt_states[row, t]) for t in said]
    rows.sort(key=lambda told: -told[0] if turns == "norm" else told[1])
    kept, missing = list(first), keep - len(first)
    for turn, (_, _, state) in enumerate(rows):
        pivot = state.double().numpy()
        like = [
            float(h @ pivot / np.linalg.norm(h) / np.linalg.norm(pivot))
            for h in cues.final_states[row].double().numpy()
        ]
        left = sorted((i for i in range(len(norms)) if i not in kept), key=lambda i: like[i])
        kept += left[: (turn + 1) * missing // len(rows) - turn * missing // len(rows)]
    return sorted(kept)


@pytest.mark.parametrize("turns", ["norm", "position"])
@pytest.mark.parametrize("keep", [1, 3, 4, 5, 11, 20, 36])
@pytest.mark.parametrize(("pivots", "text_pivots"), [(4, 4), (2, 6), (3, 0), (1, 1)])
def test_pivots_take_turns(turns, keep, pivots, text_pivots):
    cues = dataclasses.replace(make_cues(6, 3))
    valid = torch.tensor(
        [
            [False, True, True, True, True],
            [True, True, False, False, True],
            [False, False, False, False, True],
        ]
    )
    cues = dataclasses.replace(cues, prompt_valid=valid)
    method = methods.make("dart", keep=keep, pivots=pivots, text_pivots=text_pivots, turns=turns)
    kept = method.choose(cues).kept
    for row in range(3):
        assert kept[row].tolist() == one_by_one(cues, row, keep, pivots, text_pivots, turns)
        assert torch.equal(method.choose(row_of(cues, row)).kept[0], kept[row])


def test_the_order_of_turns_matters():
    cues = make_cues(6)
    kept = [methods.make("dart", keep=18, turns=turns).choose(cues).kept for turns in ("norm", "position")]
    assert not torch.equal(*kept)


def test_a_prompt_that_ends_with_the_image_has_visual_pivots_alone():
    cues = dataclasses.replace(make_cues(2), prompt_valid=torch.zeros(2, 5, dtype=torch.bool))
    alone = methods.make("dart", keep=17, text_pivots=0).choose(cues).kept
    assert torch.equal(methods.make("dart", keep=17).choose(cues).kept, alone)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pivots": 0}, "pivots must be at least 1, got 0"),
        ({"text_pivots": -1}, "text_pivots must be at least 0, got -1"),
        ({"turns": "set"}, "turns must be one of norm, position; got 'set'"),
        ({"layer": 0}, "layer must be above 0, dart reads the decoder; got 0"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        methods.make("dart", keep=4, **fields)
