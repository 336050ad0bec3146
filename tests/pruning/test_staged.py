"""Methods with several cuts: where they cut, how many stay, and who decides."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lib.pruning import methods
from lib.pruning.staged import relevant_words
from testkit.builders import build, make_cues


def after_a_cut(cues, kept, stage):
    """What a method sees at its next cut: zero where a token is gone."""
    there = torch.zeros(cues.batch, cues.count, dtype=torch.bool).scatter(1, kept, True)
    return dataclasses.replace(
        cues,
        features=cues.features * there[..., None],
        attention=cues.attention * there[:, None],
        prompt_attention=cues.prompt_attention * there[:, None],
        stage=stage,
        among=kept,
    )


@pytest.mark.parametrize(("name", "layers"), [("pyramiddrop", (8, 16, 24)), ("sparsevlm", (2, 6, 15))])
def test_the_published_depths_give_the_published_layers(name, layers):
    assert build(name).schedule(32) == layers


@pytest.mark.parametrize(
    ("name", "layers", "cuts"), [("pyramiddrop", 5, (1, 3, 4)), ("sparsevlm", 5, (1, 2, 3)), ("sparsevlm", 4, (1, 2, 3))]
)  # fmt: skip
def test_small_decoders_are_cut_at_distinct_layers(name, layers, cuts):
    assert build(name).schedule(layers) == cuts


def test_a_decoder_too_small_for_the_cuts_is_refused():
    with pytest.raises(ValueError, match=r"depths=.* cuts at layers \[1, 2, 3\] of a decoder with 3"):
        build("pyramiddrop").schedule(3)


def test_counts_after_each_cut():
    assert build("pyramiddrop").counts(576, 72) == (288, 144, 72)  # half goes each time, as published
    assert build("sparsevlm").counts(576, 17) == (66, 30, 17)  # the published schedule for a mean of 64
    assert build("sparsevlm").counts(144, 48) == (144, 85, 48)
    for name in ("pyramiddrop", "sparsevlm"):
        for keep in (1, 7, 36):
            counts = build(name).counts(36, keep)
            assert counts[-1] == keep
            assert list(counts) == sorted(counts, reverse=True)
            assert counts[0] <= 36


@pytest.mark.parametrize("name", ["pyramiddrop", "sparsevlm"])
def test_each_cut_chooses_among_what_is_left(name):
    cues, method, kept = dataclasses.replace(make_cues(3), stage=0), build(name, 5), None
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
    worst = cues.attention.mean(1).argsort(-1)[:, :9].sort(-1).values
    cues = dataclasses.replace(cues, among=worst, stage=2)
    assert torch.equal(build("pyramiddrop", 9).choose(cues).kept, worst)


def test_raters_are_the_words_above_the_average():
    visual, words = torch.randn(2, 7, 4), torch.randn(2, 5, 4)
    valid = torch.tensor([[True, True, True, True, True], [False, True, True, False, True]])
    found = relevant_words(visual, words, valid)
    for row in range(2):
        products = visual[row].double().numpy() @ words[row][valid[row]].double().numpy().T
        weights = np.exp(products - products.max(1, keepdims=True))
        match = (weights / weights.sum(1, keepdims=True)).mean(0)
        assert found[row][valid[row]].tolist() == (match > match.mean()).tolist()
        assert not found[row][~valid[row]].any()


def test_equally_relevant_words_all_rate():
    words = torch.ones(1, 3, 4)
    valid = torch.tensor([[True, False, True]])
    assert relevant_words(torch.randn(1, 6, 4), words, valid).tolist() == valid.tolist()


def test_sparsevlm_ranks_by_its_raters_alone():
    cues = make_cues(1)
    raters = relevant_words(cues.projected, cues.prompt, cues.prompt_valid)
    expected = [cues.prompt_attention[row][raters[row]].double().mean(0) for row in range(2)]
    np.testing.assert_allclose(build("sparsevlm").rank(cues)["raters"], torch.stack(expected), rtol=1e-6)
    others = cues.prompt_attention.masked_fill(raters[..., None], 0.0) * 100
    noisy = torch.where(raters[..., None], cues.prompt_attention, others)
    noisy = dataclasses.replace(cues, prompt_attention=noisy)
    assert torch.equal(build("sparsevlm").choose(noisy).kept, build("sparsevlm").choose(cues).kept)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("pyramiddrop", {"layer": 2}, "layer must be 0, pyramiddrop cuts where its depths say; got 2"),
        ("pyramiddrop", {"depths": ()}, r"depths must be a tuple of shares in \(0, 1\), got \(\)"),
        ("pyramiddrop", {"depths": [0.5]}, r"depths must be a tuple .* got \[0.5\]"),
        ("pyramiddrop", {"depths": (0.5, 0.25)}, r"depths must ascend and stay below 1, got \(0.5, 0.25\)"),
        ("pyramiddrop", {"depths": (0.5, 1.0)}, r"depths must ascend and stay below 1, got \(0.5, 1.0\)"),
        ("pyramiddrop", {"depths": (0.0, 0.5)}, "depths must be above 0.0, got 0.0"),
        ("sparsevlm", {"profile": (2.0, 1.0)}, r"profile must be a tuple with one number a cut, got \(2.0, 1.0\)"),
        ("sparsevlm", {"profile": (1.5, 2.0, 1.0)}, r"profile must descend to 1.0, got \(1.5, 2.0, 1.0\)"),
        ("sparsevlm", {"profile": (2.0, 1.0, 0.5)}, "profile must be at least 1.0, got 0.5"),
    ],
)  # fmt: skip
def test_bad_fields_are_refused(name, fields, message):
    with pytest.raises(ValueError, match=message):
        methods.make(name, keep=4, **fields)
