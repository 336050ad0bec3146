"""MultiCue: each of its cues is a switch."""

from __future__ import annotations

import dataclasses

import pytest

from lib.pruning import methods
from testkit.builders import chosen, make_cues


def with_twins(cues):
    """Cues whose features are as alike as those of neighbours in an image."""
    return dataclasses.replace(cues, features=cues.keys)


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
