"""Methods with several cuts: where they cut, how many stay, and that no token comes back."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lib.pruning import methods
from testkit.builders import build, make_cues

NAMES = ("pyramiddrop", "sparsevlm")


def after_a_cut(cues, kept, stage):
    """What a method sees at its next cut: zero where a token is gone."""
    there = torch.zeros(cues.batch, cues.count, dtype=torch.bool).scatter(1, kept, True)
    return dataclasses.replace(
        cues,
        features=cues.features * there[..., None],
        attention=cues.attention * there[:, None],
        next_attention=cues.next_attention * there[:, None],
        prompt_attention=cues.prompt_attention * there[:, None, None],
        rotary=cues.rotary * there[..., None],
        stage=stage,
        among=kept,
    )


def test_exact_layers_take_the_place_of_mapped_cuts():
    method = build("sparsevlm", layers=(2, 3, 4))
    assert method.schedule(5) == (2, 3, 4)
    assert method.schedule(32) == (2, 3, 4)
    with pytest.raises(ValueError, match=r"layers=\(2, 3, 4\) must lie within a decoder of 4 layers"):
        method.schedule(4)
    assert build("pyramiddrop", layers=(2, 3)).counts(36, 9) == (18, 9)  # half goes at each of two


def test_a_decoder_too_small_for_the_cuts_is_refused():
    with pytest.raises(ValueError, match=r"layers=3 are too few for cuts=\(8, 16, 24\) of 32"):
        build("pyramiddrop").schedule(3)


@pytest.mark.parametrize("name", NAMES)
def test_counts_descend_to_the_budget(name):
    for keep in (1, 7, 36):
        counts = build(name).counts(36, keep)
        assert counts[-1] == keep
        assert list(counts) == sorted(counts, reverse=True)
        assert counts[0] <= 36


@pytest.mark.parametrize(
    "method",
    [build("pyramiddrop", 5), build("pyramiddrop", 5, reads="before"), build("sparsevlm", 5)],
    ids=["pyramiddrop", "before", "sparsevlm"],
)
def test_each_cut_chooses_among_what_is_left(method):
    cues, kept = dataclasses.replace(make_cues(3), stage=0), None
    for stage in range(3):
        choice = method.choose(cues)
        assert choice.kept.shape == (2, method.counts(36, 5)[stage])
        if kept is not None:
            for before, after in zip(kept, choice.kept, strict=True):
                assert set(after.tolist()) <= set(before.tolist())
        kept = choice.kept
        cues = after_a_cut(cues, kept, stage + 1)
    top = method.rank(make_cues(3))
    best = next(iter(top.values())).sort(dim=-1, descending=True).indices[:, :5].sort(dim=-1).values
    assert torch.equal(kept, best)  # these scores do not change, so several cuts end where one would


def test_no_token_comes_back_though_all_others_score_less():
    cues = make_cues(0)
    worst = cues.next_attention.mean(1).argsort(-1)[:, :9].sort(-1).values
    cues = dataclasses.replace(cues, among=worst, stage=2)
    assert torch.equal(build("pyramiddrop", 9).choose(cues).kept, worst)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer": 2}, "layer must be 0, pyramiddrop cuts where its fields cuts and layers say; got 2"),
        ({"cuts": ()}, r"cuts must be a tuple of decoder layers, got \(\)"),
        ({"cuts": [8, 16]}, r"cuts must be a tuple of decoder layers, got \[8, 16\]"),
        ({"cuts": (16, 8)}, r"cuts must ascend and stay within 31, got \(16, 8\)"),
        ({"cuts": (8, 32)}, r"cuts must ascend and stay within 31, got \(8, 32\)"),
        ({"cuts": (0, 8)}, "cuts must be at least 1, got 0"),
        ({"cuts": (0.25, 0.5)}, "cuts must be an int, got 0.25"),
        ({"layers": (3, 3)}, r"layers must ascend, got \(3, 3\)"),
        ({"layers": 3}, "layers must be a tuple of decoder layers, got 3"),
        ({"reads": "after"}, "reads must be one of entering, before; got 'after'"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        methods.make("pyramiddrop", keep=4, **fields)
