"""VisPruner: its list, its rounds, and what happens where the released code stops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.pruning import methods
from lib.pruning.methods import Cues
from lib.pruning.peers.vispruner import drop_duplicates
from lib.study.parity import vispruner as transcription
from testkit.builders import chosen, example, make_cues

few = settings(max_examples=25, deadline=None)


def at_angles(*degrees: float) -> torch.Tensor:
    """Unit vectors of the plane, [1, M, 2]."""
    turns = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([turns.cos(), turns.sin()], -1)[None].float()


def test_the_list_goes_by_falling_attention():
    # In raster order the released code would keep 1, 2, 4 and 5.
    saliency = torch.zeros(1, 1, 6)
    saliency[0, 0, [4, 1, 2, 3, 0, 5]] = torch.tensor([0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    cues = Cues(grid=(2, 3), features=at_angles(179, 276, 32, 48, 111, 228), saliency=saliency)
    assert chosen(methods.make("vispruner", keep=4), cues) == [[1, 3, 4, 5]]


def test_survivors_of_a_round_stand_by_likeness_in_the_next():
    # Places 0, 2 and 4 look for their like among 1, 3 and 5 (all at 0 degrees): 40, 20 and 60 degrees away. 2 goes; then
    # the list is 0, 4, 1, 3, 5, where 0 and 1 and 5 are even: 1 and 5 have twins in 3.
    features = at_angles(40, 0, 20, 0, 60, 0)
    assert drop_duplicates(features, 5, 1).tolist() == [[0, 1, 3, 4, 5]]
    assert drop_duplicates(features, 4, 1).tolist() == [[0, 3, 4, 5]]


@few
@given(
    seed=st.integers(0, 10_000), keep=st.integers(1, 36), share=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
)
def test_every_budget_equals_the_transcription(seed, keep, share):
    scores, features = example(seed, 1, 36)
    cues = Cues(grid=(6, 6), features=features, saliency=scores[:, None])
    expected, _ = transcription.select(scores[0].double().numpy(), features[0].double().numpy(), keep, share)
    assert chosen(methods.make("vispruner", keep=keep, important=share), cues) == [expected]


def test_the_release_stops_where_ours_goes_on():
    rng = np.random.default_rng(0)
    saliency, features = rng.random(144), rng.standard_normal((144, 8))
    stops = {
        (keep, share): transcription.select(saliency, features, keep, share)[1]
        for keep, share in ((16, 0.5), (16, 0.75), (64, 0.5), (18, 0.5))
    }
    # A last round of fewer than eight pairs; 144 - 9 is odd.
    assert stops == {(16, 0.5): "", (16, 0.75): "stops", (64, 0.5): "", (18, 0.5): "stops"}


def test_the_share_is_rounded_down_and_goes_to_saliency():
    cues = make_cues(4)
    order = cues.saliency[0].mean(0).argsort(descending=True).tolist()
    for keep, share, first in ((12, 0.5, 6), (11, 0.5, 5), (7, 0.75, 5), (1, 0.5, 0)):
        kept = chosen(methods.make("vispruner", keep=keep, important=share), cues)[0]
        assert set(order[:first]) <= set(kept)
        expected, _ = transcription.select(
            cues.saliency[0].mean(0).double().numpy(), cues.features[0].double().numpy(), keep, share
        )
        assert kept == expected
    assert chosen(methods.make("vispruner", keep=12, important=1.0), cues) == chosen(
        methods.make("cls", keep=12), cues
    )


def test_cosines_that_float32_cannot_tell_apart_decide():
    # Places 0 and 2 differ from place 1 by angles whose cosines round to the same float32.
    features = torch.tensor([[[1.0, 1.0e-4], [1.0, 0.0], [1.0, 0.9e-4]]])
    near, far = (math.cos(math.atan(angle)) for angle in (0.9e-4, 1.0e-4))
    assert np.float32(near) == np.float32(far)
    assert drop_duplicates(features, 2, 1).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step": 0}, "step must be at least 1, got 0"),
        ({"keep": 0}, "keep must be at least 1, got 0"),
        ({"keep": 10}, "keep must be at most 9, got 10"),
        ({"keep": 2.5}, r"keep must be an int, got 2\.5"),
        ({"features": torch.ones(9, 2)}, r"features must have shape \[B, M, D\], got \[9, 2\]"),
        ({"features": torch.ones(1, 0, 2)}, r"features must not be empty along M, got shape \[1, 0, 2\]"),
        ({"features": torch.full((1, 9, 2), torch.nan)}, "features must be finite"),
    ],
)
def test_bad_lists_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        drop_duplicates(**{"features": torch.ones(1, 9, 2), "keep": 4, "step": 2, **change})
