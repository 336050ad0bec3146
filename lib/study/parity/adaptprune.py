"""AdaptPrune as released: attention, a Gaussian over the grid, and adaptive suppression."""

from __future__ import annotations

import numpy as np

from lib.study.parity.oracles import adaptive_nms
from lib.study.parity.trial import Case, Draw, Told


def rule(draw: Draw) -> Told:
    """The Gaussian has a width of 12 cells of whatever grid; the release knows 24 x 24 alone."""
    attention = draw.see("attention").mean(0)
    sides = [np.linspace(-side / 2, side / 2, side) for side in draw.grid]
    prior = np.exp(-(sides[0][:, None] ** 2 + sides[1] ** 2) / (2 * 12.0**2)).flatten()
    corrected = attention * prior / prior.max()
    picks = adaptive_nms(corrected, draw.see("keys"), draw.grid, draw.keep)
    return Told({"attention": attention, "corrected": corrected, "kept": sorted(picks)})


LARGE, SMALL = tuple(((24, 24), keep) for keep in (64, 128, 192)), (((12, 12), 16),)
CASES = (
    Case(
        method="adaptprune",
        release="bzluan/AdaptPrune d0842f3",
        rule=rule,
        settled="Never picks a token twice; the release can, once all scores are 0.",
        sizes=LARGE,
    ),
    Case(
        method="adaptprune",
        setting="12 x 12, sigma_centre=24.0",
        fields={"sigma_centre": 24.0},
        release="bzluan/AdaptPrune d0842f3",
        rule=rule,
        settled="The release knows 24 x 24 alone; with its sigma counted in cells of another grid. Ours by default scales the "
        "Gaussian with the grid (sigma 12 of a side of 24), a declared extension.",
        sizes=SMALL,
    ),
)
