"""The neighbours against slow transcriptions of their rules, and one thing each of their parts must change."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.pruning import duplicates, methods, peers
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
@given(seed=st.integers(0, 10_000), keep=st.integers(1, 30), step=st.integers(1, 9))
def test_duplicates_leave_by_rounds(seed, keep, step):
    _, features = example(seed, 1, 30)
    like, left = cosines(features[0]), list(range(30))
    while len(left) > keep:
        even, odd = left[::2], left[1::2]
        most = max(1, len(even) - len(left) % 2)
        twin = [max(like[i, j] for j in odd) for i in even]
        gone = {even[i] for i in best(twin, min(step, len(left) - keep, most))}
        left = [i for i in left if i not in gone]
    found = duplicates.drop_duplicates(features, torch.arange(30)[None], keep, step)
    assert found[0].tolist() == left


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


@few
@given(seed=st.integers(0, 10_000), keep=st.integers(1, 36), crops=st.integers(1, 40))
def test_quotas_are_whole_fit_and_sum_up(seed, keep, crops):
    cues = make_cues(seed)
    method = methods.make("holov", keep=keep, crops=crops)
    kept = method.choose(cues).kept
    crops = min(crops, 36)
    crop = np.arange(36) * crops // 36
    saliency = cues.saliency.mean(1).numpy()
    for row in range(2):
        inside = np.bincount(crop[kept[row].numpy()], minlength=crops)
        assert inside.sum() == keep
        for number in range(crops):  # within a crop attention decides
            members = np.flatnonzero(crop == number)
            wanted = [int(members[i]) for i in best(list(saliency[row, members]), inside[number])]
            assert sorted(wanted) == [i for i in kept[row].tolist() if crop[i] == number]


def test_quotas_follow_the_wish_and_pass_surplus_on():
    capacity = torch.full((4,), 9.0, dtype=torch.float64)
    even = peers._quotas(torch.ones(1, 4, dtype=torch.float64), capacity, 12)
    assert even.tolist() == [[3, 3, 3, 3]]
    steep = peers._quotas(torch.tensor([[100.0, 1.0, 1.0, 2.0]], dtype=torch.float64), capacity, 21)
    assert steep.tolist() == [[9, 3, 3, 6]]


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


def test_vispruner_spends_its_share_on_saliency():
    cues = make_cues(4)
    top = set(best(cues.saliency[0].mean(0).tolist(), 6))
    kept = methods.make("vispruner", keep=12).choose(cues).kept[0].tolist()
    assert top <= set(kept)
    assert chosen(methods.make("vispruner", keep=12, important=1.0), cues) == chosen(
        methods.make("cls", keep=12), cues
    )


def test_trim_keeps_what_the_question_picks_and_the_mean_of_the_rest():
    cues = make_cues(5)
    choice = methods.make("trim", keep=7).choose(cues)
    for row in range(2):
        patches = cues.patches[row].numpy() / np.linalg.norm(
            cues.patches[row].numpy(), axis=-1, keepdims=True
        )
        order = best(list(-(patches @ cues.sentence[row].numpy())), 7)
        assert choice.kept[row].tolist() == sorted(order)
        outside = [i for i in range(36) if i not in order[:-1]]
        mean = cues.features[row].numpy()[outside].mean(0)
        place = sorted(order).index(order[-1])
        np.testing.assert_allclose(choice.features[row, place].numpy(), mean, atol=1e-5)
    assert methods.make("trim", keep=7, aggregate=False).choose(cues).features is None


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
        ("cdpruner", "sentence"),
        ("cdpruner", "projected"),
        ("holov", "saliency"),
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


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step": 0}, "step must be at least 1, got 0"),
        ({"keep": -1}, "keep must be at least 0, got -1"),
        ({"keep": 10}, "keep must be at most 9, got 10"),
        ({"keep": 2.5}, r"keep must be an int, got 2\.5"),
        ({"among": torch.arange(9)[None] + 1}, r"among must lie in 0\.\.8, got 1\.\.9"),
        ({"among": torch.zeros(1, 9, dtype=torch.int64)}, "among must be ascending and distinct"),
        ({"among": torch.arange(9.0)[None]}, "among must be int64, got torch.float32"),
        ({"among": torch.arange(9)}, r"among must have shape \[B=1, M\], got \[9\]"),
        ({"features": torch.full((1, 9, 2), torch.nan)}, "features must be finite"),
    ],
)
def test_bad_duplicates_are_refused(change, said):
    good = {"features": torch.ones(1, 9, 2), "among": torch.arange(9)[None], "keep": 4, "step": 2}
    with pytest.raises(ValueError, match=said):
        duplicates.drop_duplicates(**{**good, **change})


def test_attention_of_multicue_is_one_of_its_kinds():
    with pytest.raises(ValueError, match="attention must be one of qq, qk, kk, vv; got 'hidden'"):
        methods.make("multicue", keep=4, attention="hidden")
