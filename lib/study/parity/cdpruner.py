"""CDPruner as released: a determinantal point process of relevance and likeness."""

from __future__ import annotations

import numpy as np

from lib.study.parity.oracles import unit
from lib.study.parity.trial import Case, Draw, Told


def rule(draw: Draw) -> Told:
    """Each pick has the largest conditional variance, of the kernel's Gaussian given all picks before."""
    patches, pieces = unit(draw.see("patches")), unit(draw.see("tokens"))
    relevance = -(patches @ pieces.T).mean(1)
    task = (relevance - relevance.min() + 1e-6) / (relevance.max() - relevance.min() + 1e-6)
    projected = unit(draw.see("projected"))
    kernel = task[:, None] * (projected @ projected.T) * task
    picks: list[int] = []
    left = kernel.copy()
    for _ in range(draw.keep):
        variance = np.diag(left).copy()
        variance[picks] = -np.inf
        pick = int(variance.argmax())
        picks.append(pick)
        left = left - np.outer(left[:, pick], left[pick]) / left[pick, pick]
    return Told({"task": task, "kept": sorted(picks)})


CASES = (
    Case(
        method="cdpruner",
        release="Theia-4869/CDPruner 9541616",
        rule=rule,
        settled="Up to the kernel's rank. Past it the release follows rounding noise and then fails; ours fills up with the "
        "lowest positions. The release scales relevance over the batch, ours over each row: the same for one question.",
    ),
)
