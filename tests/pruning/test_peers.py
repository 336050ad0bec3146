"""The neighbours against slow transcriptions of their rules, and one thing each of their parts must change."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.pruning import duplicates, methods
from testkit.builders import chosen, example, make_cues

few = settings(max_examples=25, deadline=None)


def cosines(features):
    rows = np.asarray(features, np.float64)
    rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows @ rows.T


def with_twins(cues):
    """Cues whose features are as alike as those of neighbours in an image."""
    return dataclasses.replace(cues, features=cues.keys)


def best(scores, count):
    """Positions of the highest scores, ties to the lower position."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count]


@few
@given(seed=st.integers(0, 10_000), keep=st.integers(1, 30))
def test_merging_keeps_every_token_with_its_weight(seed, keep):
    _, features = example(seed, 1, 30)
    groups = [([i], np.asarray(features[0, i], np.float64)) for i in range(30)]
    while len(groups) > keep:
        even, odd = groups[::2], [[list(m), v] for m, v in groups[1::2]]
        like = np.array([[cosines([a[1], b[1]])[0, 1] for b in odd] for a in even])
        offers = best(list(like.max(1)), min(len(groups) - keep, len(even), len(odd)))
        partner = like.argmax(1)
        places = [group[0][0] for group in groups[1::2]]
        for j, group in enumerate(odd):
            mine = [even[i] for i in offers if partner[i] == j]
            total = group[1] * len(group[0]) + sum((v * len(m) for m, v in mine), np.zeros(features.shape[2]))
            group[0] = group[0] + [t for m, _ in mine for t in m]
            group[1] = total / len(group[0])
        stay = [(even[i][0], even[i][1]) for i in range(len(even)) if i not in offers]
        merged = sorted(
            [(m[0], (m, v)) for m, v in stay] + [(p, (m, v)) for p, (m, v) in zip(places, odd, strict=True)]
        )
        groups = [group for _, group in merged]
    kept, values = duplicates.bipartite_merge(features, keep)
    assert kept[0].tolist() == [group[0][0] for group in groups]
    np.testing.assert_allclose(values[0].numpy(), [group[1] for group in groups], atol=1e-4)
    assert sorted(token for group in groups for token in group[0]) == list(range(30))


def test_visionzip_is_its_transcription():
    cues, keep = make_cues(3), 12
    choice = methods.make("visionzip", keep=keep, contextual=0.25).choose(cues)
    for row in range(2):
        saliency = cues.saliency[row].mean(0).numpy()
        like, features = cosines(cues.vision_keys[row]), cues.features[row].numpy().astype(np.float64)
        dominant = best(list(saliency), 9)
        rest = [i for i in range(36) if i not in dominant]
        targets = rest[:: len(rest) // 3][:3]
        expected = {i: features[i].copy() for i in dominant + targets}
        joined = {i: [] for i in targets}
        for i in rest:
            if i not in targets:
                joined[max(targets, key=lambda t: (like[i, t], -t))].append(i)
        for target, members in joined.items():
            if members:
                expected[target] += features[members].mean(0)
        assert choice.kept[row].tolist() == sorted(expected)
        np.testing.assert_allclose(
            choice.features[row].numpy(), [expected[i] for i in sorted(expected)], atol=1e-5
        )


def test_pooling_averages_windows():
    cues = make_cues(7)
    choice = methods.make("pool", keep=9).choose(cues)
    windows = cues.features.reshape(2, 3, 2, 3, 2, 8).mean((2, 4)).reshape(2, 9, 8)
    torch.testing.assert_close(choice.features, windows, atol=1e-6, rtol=0)


def test_centre_crop_is_the_middle():
    assert chosen(methods.make("centre_crop", keep=4), make_cues())[0] == [14, 15, 20, 21]


@pytest.mark.parametrize(
    ("name", "cue"),
    [
        ("visionzip", "saliency"),
        ("visionzip", "vision_keys"),
        ("vispruner", "saliency"),
        ("vispruner", "features"),
        ("trim", "sentence"),
        ("divprune", "projected"),
        ("cdpruner", "tokens"),
        ("cdpruner", "projected"),
        ("holov", "saliency"),
        ("trim", "patches"),
        ("dart", "attended_keys"),
        ("dart", "prompt_keys"),
        ("dart", "final_states"),
        ("dart", "prompt_states"),
        ("tome", "features"),
        ("multicue", "tokens"),
        ("multicue", "saliency"),
        ("multicue", "features"),
    ],
)
def test_another_pictures_cue_changes_the_choice(name, cue):
    cues, other = (with_twins(make_cues(seed)) for seed in (1, 2))
    method = methods.make(name, keep=18)
    swapped = dataclasses.replace(cues, **{cue: getattr(other, cue)})
    here, there = method.choose(cues), method.choose(swapped)
    assert not torch.equal(here.kept, there.kept) or not torch.equal(here.features, there.features)


def test_the_sign_of_the_question_can_be_turned():
    cues = make_cues(8)
    for name in ("trim", "cdpruner"):
        assert chosen(methods.make(name, keep=9), cues) != chosen(
            methods.make(name, keep=9, negated=False), cues
        )


def test_multicue_reduces_to_its_parts():
    cues = with_twins(make_cues(9))
    alone = {"text": False, "saliency": False, "spatial": False, "redundancy": False}
    only_saliency = methods.make("multicue", keep=9, **{**alone, "saliency": True})
    assert chosen(only_saliency, cues) == chosen(methods.make("desap", keep=9, share=0.0), cues)
    only_text = methods.make("multicue", keep=9, **{**alone, "text": True})
    assert chosen(only_text, cues) == chosen(methods.make("desap", keep=9, share=1.0), cues)
    spread = methods.make("multicue", keep=4, **{**alone, "spatial": True})
    assert chosen(spread, cues)[0] == chosen(spread, make_cues(10))[0]  # distance alone knows no picture
    with pytest.raises(ValueError, match="cannot all be off: use random as the empty arm"):
        methods.make("multicue", keep=9, **alone)
    seen = {
        str(
            chosen(
                methods.make("multicue", keep=9, sigma_distance=6.0, **{**alone, "text": True, cue: True}),
                cues,
            )
        )
        for cue in alone
    }
    assert len(seen) == 4


def test_attention_of_multicue_is_one_of_its_kinds():
    with pytest.raises(ValueError, match="attention must be one of qq, qk, kk, vv; got 'hidden'"):
        methods.make("multicue", keep=4, attention="hidden")
