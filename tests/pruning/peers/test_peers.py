"""One thing each of the neighbours' parts must change."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lib.pruning import methods
from testkit.builders import chosen, make_cues


def with_twins(cues):
    """Cues whose features are as alike as those of neighbours in an image."""
    return dataclasses.replace(cues, features=cues.keys)


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
