"""The cues against their slow transcriptions, and each refusal."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.pruning import cues
from lib.study.parity import oracles
from testkit import transcriptions

few = settings(max_examples=25, deadline=None)


def features(seed: int, *, batch: int = 2, patches: int = 9, words: int = 5, width: int = 8) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, patches, width), (batch, words, width), (batch, width), (batch, width))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


@pytest.mark.parametrize("saliency", [cues.cls_saliency, cues.last_query_saliency])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_saliency_is_the_head_mean_in_float32(saliency, dtype):
    attention = torch.rand(2, 3, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    result = saliency(attention)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result, attention.double().numpy().mean(1), rtol=1e-6)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("scale", [0.1, 0.0, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_alignment_equals_the_printed_equations(seed, scale, normalised):
    local, tokens, image, sentence = features(seed)
    valid = torch.tensor([[True] * 5, [True, False, True, True, False]])
    result = cues.decoupled_similarity(local, tokens, image, sentence, valid, scale, normalised=normalised)
    assert result.dtype == torch.float32
    for row in range(2):
        parts = [x[row].double().numpy() for x in (local, tokens[:, :], image, sentence)]
        parts[1] = parts[1][valid[row].numpy()]
        if normalised:
            parts = [oracles.unit(x) for x in parts]
        expected = transcriptions.fine_grained_alignment(*parts, scale)
        np.testing.assert_allclose(result[row], expected, rtol=1e-6, atol=1e-7)


def test_plain_similarity_over_tokens_and_sentence():
    local, tokens, image, sentence = features(4)
    valid = torch.tensor([[True, True, False, False, False], [True] * 5])
    over_tokens = cues.decoupled_similarity(local, tokens, image, sentence, valid, aligned=False)
    over_sentence = cues.decoupled_similarity(
        local, tokens, image, sentence, valid, aligned=False, pooling="sentence"
    )
    raw = cues.decoupled_similarity(local, tokens, image, sentence, valid, aligned=False, normalised=False)
    for row in range(2):
        patch, word = oracles.unit(local[row].numpy()), oracles.unit(tokens[row][valid[row]].numpy())
        np.testing.assert_allclose(over_tokens[row], (patch @ word.T).mean(1), atol=1e-6)
        np.testing.assert_allclose(over_sentence[row], patch @ oracles.unit(sentence[row].numpy()), atol=1e-6)
        expected = (local[row] @ tokens[row][valid[row]].T).mean(1)
        np.testing.assert_allclose(raw[row], expected, rtol=1e-5, atol=1e-5)


@few
@given(seed=st.integers(0, 10_000), padding=st.integers(1, 4), aligned=st.booleans())
def test_padding_and_batch_mates_change_nothing(seed, padding, aligned):
    local, tokens, image, sentence = features(seed, words=4)
    alone = cues.decoupled_similarity(local[:1], tokens[:1], image[:1], sentence[:1], aligned=aligned)
    filler = torch.full((2, padding, tokens.shape[2]), torch.nan)
    valid = torch.tensor([[True] * 4 + [False] * padding] * 2)
    padded = torch.cat([tokens, filler], dim=1)
    together = cues.decoupled_similarity(local, padded, image, sentence, valid, aligned=aligned)
    assert torch.equal(together[:1], alone)


def test_raw_features_of_large_norm_stay_finite():
    local, tokens, image, sentence = (100 * x for x in features(5))
    assert cues.decoupled_similarity(local, tokens, image, sentence, normalised=False).isfinite().all()


def test_a_matching_patch_ranks_first():
    local, tokens, image, _ = features(6, batch=1)
    local[0, 7] = tokens[0].mean(0) * 5
    sentence = tokens.mean(1)
    assert cues.decoupled_similarity(local, tokens, sentence, sentence).argmax().item() == 7
    assert cues.decoupled_similarity(local, tokens, image, sentence, aligned=False).argmax().item() == 7


def test_centre_prior_equals_the_released_constants():
    prior = cues.centre_prior((24, 24))
    np.testing.assert_allclose(prior, transcriptions.centre_prior_24(), rtol=1e-6)
    assert prior.dtype == torch.float32
    assert prior.max() == 1
    assert prior[0].item() == pytest.approx(math.exp(-1), abs=0.01)


@pytest.mark.parametrize("grid", [(12, 12), (6, 9), (1, 7), (1, 1), (5, 5)])
def test_centre_prior_on_other_grids(grid):
    prior = cues.centre_prior(grid).view(grid)
    assert prior.max() == 1
    torch.testing.assert_close(prior, prior.flip(0))
    torch.testing.assert_close(prior, prior.flip(1))
    torch.testing.assert_close(prior, cues.centre_prior(grid[::-1]).view(grid[::-1]).T)


@pytest.mark.parametrize("side", [3, 5, 25])
def test_centre_prior_has_one_shape_relative_to_the_image(side):
    corner, edge = math.exp(-1), math.exp(-0.5)
    prior = cues.centre_prior((side, side)).view(side, side)
    assert prior[0, 0].item() == pytest.approx(corner)
    assert prior[0, side // 2].item() == pytest.approx(edge)


def test_centre_prior_without_width_limit_is_flat():
    torch.testing.assert_close(cues.centre_prior((4, 6), sigma=math.inf), torch.ones(24))


def test_key_tokens_keep_the_most_important_and_ties_go_to_the_earlier():
    valid = torch.tensor([[True, True, True, True, False], [True, False, False, False, False]])
    importance = torch.tensor([[0.1, 0.5, 0.5, 0.5, 9.0], [0.2, 0.0, 0.0, 0.0, 0.0]])
    kept = cues.key_tokens(valid, importance, 2)
    assert kept.tolist() == [[False, True, True, False, False], [True, False, False, False, False]]


def test_cues_run_on_meta_tensors():
    local, tokens, image, sentence = (x.to("meta") for x in features(0))
    valid = torch.ones(2, 5, dtype=torch.bool, device="meta")
    for aligned in (True, False):
        result = cues.decoupled_similarity(local, tokens, image, sentence, valid, aligned=aligned)
        assert result.shape == (2, 9)
    assert cues.cls_saliency(torch.zeros(2, 3, 9, device="meta")).shape == (2, 9)
    assert cues.centre_prior((3, 3), device="meta").shape == (9,)
    assert cues.key_tokens(valid, torch.zeros(2, 5, device="meta"), 2).shape == (2, 5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_refused(bad):
    attention = torch.rand(1, 2, 4)
    attention[0, 1, 2] = bad
    with pytest.raises(ValueError, match="attention must be finite: 1 of 8"):
        cues.cls_saliency(attention)
    for place, name in enumerate(("local", "tokens", "image", "sentence")):
        parts = [x.clone() for x in features(1)]
        parts[place].view(-1)[0] = bad
        with pytest.raises(ValueError, match=f"{name} must be finite"):
            cues.decoupled_similarity(*parts)


@pytest.mark.parametrize(("place", "name"), list(enumerate(("local", "tokens", "image", "sentence"))))
def test_shapes_that_do_not_fit_are_refused(place, name):
    parts = list(features(1))
    parts[place] = parts[place][..., None]
    with pytest.raises(ValueError, match=f"{name} must have shape"):
        cues.decoupled_similarity(*parts)


def test_other_refusals():
    parts = features(1)
    with pytest.raises(ValueError, match=r"valid must have shape \[B=2, T=5\], got \[2, 4\]"):
        cues.decoupled_similarity(*parts, torch.ones(2, 4, dtype=torch.bool))
    empty = torch.tensor([[True] * 5, [False] * 5])
    with pytest.raises(ValueError, match=r"rows \[1\] have none"):
        cues.decoupled_similarity(*parts, empty)
    with pytest.raises(ValueError, match="scale must be finite, got inf"):
        cues.decoupled_similarity(*parts, scale=math.inf)
    with pytest.raises(ValueError, match="pooling must be one of tokens, sentence; got 'max'"):
        cues.decoupled_similarity(*parts, pooling="max")
    with pytest.raises(ValueError, match=r"attention must have shape \[B, H, N\], got \[2, 3\]"):
        cues.cls_saliency(torch.rand(2, 3))
    for sigma in (0, -1.0, math.nan, True, "12"):
        with pytest.raises(ValueError, match="sigma"):
            cues.centre_prior((4, 4), sigma)
    for grid in ((0, 4), (4,), (4, 4.0), (True, 4), 16, None):
        with pytest.raises(ValueError, match="grid"):
            cues.centre_prior(grid)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        cues.key_tokens(torch.ones(1, 3, dtype=torch.bool), torch.rand(1, 3), 0)


@pytest.mark.parametrize("slope", [0.0, 0.05, -0.3])
def test_detrending_takes_out_exactly_the_exponential_trend(slope):
    place = torch.arange(30, dtype=torch.float64) - 14.5
    flat = torch.rand(2, 30, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 0.5
    own = (flat.log() * place).sum(-1, keepdim=True) / place.square().sum()
    flat = flat * torch.exp(-own * place)  # a row without any trend of its own
    tilted = flat * torch.exp(slope * place)
    np.testing.assert_allclose(cues.recency_detrended(tilted.float()), flat, rtol=2e-5)


def test_detrending_survives_zeros_and_one_token():
    row = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    found = cues.recency_detrended(row)
    assert found.isfinite().all()
    assert (found[0, [0, 1, 3]] == 0).all()
    assert found[0, 2] > 0
    assert cues.recency_detrended(torch.tensor([[0.25]])).tolist() == [[0.25]]
    assert cues.recency_detrended(torch.zeros(1, 3)).tolist() == [[0.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match="attention must"):
        cues.recency_detrended(torch.ones(3))


def test_flags_and_masks_are_refused():
    parts = features(0)
    for name in ("aligned", "normalised"):
        with pytest.raises(ValueError, match=f"{name} must be True or False, got 'no'"):
            cues.decoupled_similarity(*parts, **{name: "no"})
    with pytest.raises(ValueError, match=r"valid must be a mask of bools or of 0 and 1, got torch\.float32"):
        cues.decoupled_similarity(*parts, torch.ones(2, 5))
    with pytest.raises(ValueError, match=r"valid must hold 0 and 1 alone, got \[3\]"):
        cues.key_tokens(torch.full((2, 5), 3), torch.rand(2, 5), 2)
    whole = torch.ones(2, 5, dtype=torch.int64)
    assert torch.equal(cues.key_tokens(whole, torch.rand(2, 5), 5), torch.ones(2, 5, dtype=torch.bool))
