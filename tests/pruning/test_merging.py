"""Merging against its slow transcription."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.pruning import methods
from lib.pruning.merging import average_into_kept
from testkit import transcriptions
from testkit.builders import build, chosen, make_cues


def example(seed: int, batch: int, tokens: int, count: int, width: int = 6):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, tokens, width, generator=generator)
    kept = torch.stack(
        [torch.randperm(tokens, generator=generator)[:count].sort().values for _ in range(batch)]
    )
    return features, kept


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), tokens=st.integers(1, 20), data=st.data())
def test_equals_the_transcription(seed, tokens, data):
    count = data.draw(st.integers(1, tokens))
    features, kept = example(seed, 2, tokens, count)
    merged = average_into_kept(features, kept)
    for row in range(2):
        expected = transcriptions.average_into_kept(features[row].numpy(), kept[row].tolist())
        np.testing.assert_allclose(merged[row], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(average_into_kept(features[:1], kept[:1]), merged[:1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_keeping_everything_changes_no_bit(dtype):
    features, kept = example(0, 2, 7, 7)
    features = features.to(dtype)
    assert torch.equal(average_into_kept(features, kept), features)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_averaged_in_float32(dtype):
    features, kept = example(1, 2, 12, 4)
    features = features.to(dtype)
    merged = average_into_kept(features, kept)
    assert merged.dtype == dtype
    assert torch.equal(merged, average_into_kept(features.float(), kept).to(dtype))


def test_total_mass_is_kept():
    features, kept = example(2, 1, 30, 1)
    torch.testing.assert_close(average_into_kept(features, kept)[:, 0], features.mean(1))


def test_ties_join_the_lower_kept_token_and_centres_stay_apart():
    # All directions are equal: dropped tokens join the first kept one, the second stays its own centre.
    features = torch.tensor([[[1.0], [2.0], [3.0], [6.0]]])
    merged = average_into_kept(features, torch.tensor([[0, 3]]))
    torch.testing.assert_close(merged, torch.tensor([[[2.0], [6.0]]]))


def test_runs_on_meta_tensors():
    features = torch.zeros(2, 9, 4, device="meta")
    kept = torch.zeros(2, 3, dtype=torch.int64, device="meta")
    assert average_into_kept(features, kept).shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (torch.tensor([[2, 1]]), "ascending and distinct"),
        (torch.tensor([[1, 1]]), "ascending and distinct"),
        (torch.tensor([[0, 4]]), r"kept must lie in 0\.\.3, got 0\.\.4"),
        (torch.tensor([[-1, 2]]), r"kept must lie in 0\.\.3, got -1\.\.2"),
        (torch.zeros(1, 0, dtype=torch.int64), r"kept must not be empty along k, got shape \[1, 0\]"),
        (torch.tensor([[0.0, 1.0]]), "kept must be int64, got torch.float32"),
        (torch.tensor([0, 1]), "kept must have shape"),
        (torch.tensor([[0], [1]]), r"kept must have shape \[B=1, k\], got \[2, 1\]"),
    ],
)
def test_bad_positions_are_refused(kept, message):
    with pytest.raises(ValueError, match=message):
        average_into_kept(torch.rand(1, 4, 3), kept)


def test_bad_features_are_refused():
    with pytest.raises(ValueError, match="features must have shape"):
        average_into_kept(torch.rand(4, 3), torch.tensor([[0]]))
    with pytest.raises(ValueError, match="features must be finite"):
        average_into_kept(torch.full((1, 4, 3), torch.nan), torch.tensor([[0]]))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("desap", {}),
        ("cls", {"merge": True}),
        ("pool", {}),
        ("visionzip", {"contextual": 1.0}),
        ("trim", {}),
        ("tome", {}),
    ],
)
@pytest.mark.parametrize("keep", [1, 7, 20])
def test_what_is_merged_has_a_gradient(name, fields, keep):
    cues = make_cues(3)
    features = cues.features.clone().requires_grad_()
    choice = methods.make(name, keep=keep, **fields).choose(dataclasses.replace(cues, features=features))
    choice.features.square().sum().backward()
    assert (features.grad.norm(dim=-1) > 0).all()  # every token went into a kept one
    plain = methods.make(name, keep=keep, **fields).choose(cues)
    assert torch.equal(plain.kept, choice.kept)
    assert torch.equal(plain.features, choice.features)


def test_every_method_that_rewrites_features_is_among_those():
    rewrites = {name for name in methods.NAMES if build(name).choose(make_cues()).features is not None}
    assert rewrites == {"desap", "pool", "visionzip", "trim", "tome"}


@pytest.mark.parametrize("name", methods.NAMES)
def test_features_with_a_gradient_are_chosen_alike(name):
    cues = make_cues(4)
    asking = {
        field.name: getattr(cues, field.name).clone().requires_grad_()
        for field in dataclasses.fields(cues)
        if isinstance(getattr(cues, field.name), torch.Tensor)
        and getattr(cues, field.name).is_floating_point()
    }
    assert chosen(build(name), dataclasses.replace(cues, **asking)) == chosen(build(name), cues)
