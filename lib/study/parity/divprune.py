"""DivPrune: greedy max-min distance, restated from the paper."""

from __future__ import annotations

import numpy as np

from lib.study.parity.oracles import unit
from lib.study.parity.trial import Case, Draw, Told


def rule(draw: Draw) -> Told:
    """From the token whose nearest other is farthest, always the one that is farthest from its nearest pick."""
    features = unit(draw.see("projected"))
    distance = 1 - features @ features.T
    apart = distance + np.diag(np.full(draw.count, np.inf))
    picks = [int(apart.min(1).argmax())]
    while len(picks) < draw.keep:
        nearest = distance[:, picks].min(1)
        nearest[picks] = -np.inf
        picks.append(int(nearest.argmax()))
    return Told({"kept": sorted(picks)})


CASES = (
    Case(
        method="divprune",
        release="vbdi/divprune 799e2d9",
        rule=rule,
        settled="Restated from the paper: its code was not read for this project (non-commercial licence). Run beside ours by an "
        "outside examiner, it kept the same tokens; in half precision it does not equal itself.",
    ),
)
