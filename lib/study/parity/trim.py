"""TRIM as released, at a fixed budget: the question's patches, and one mean of all others."""

from __future__ import annotations

import numpy as np

from lib.study.parity.oracles import top_k
from lib.study.parity.trial import Case, Draw, Told


def rule(draw: Draw) -> Told:
    """The patches with the lowest product with the question, all but one of the budget; the mean of the others is the last."""
    task = -(draw.see("patches") @ draw.see("sentence"))
    order, features = top_k(task, draw.count), draw.see("features")
    kept, others = order[: draw.keep - 1], order[draw.keep - 1 :]
    # The release appends the mean and gives it no place; ours stands where the best of the others stood.
    rows = {token: features[token] for token in kept} | {others[0]: features[others].mean(0)}
    places = sorted(rows)
    return Told({"task": task, "kept": places, "features": np.stack([rows[place] for place in places])})


CASES = (
    Case(
        method="trim",
        release="FreedomIntelligence/TRIM f5a232d",
        rule=rule,
        settled="The same tokens and the same mean. The release puts the mean behind all tokens, ours in the place of the best "
        "token that it holds; outliers by quartiles give no fixed budget and are left out.",
    ),
)
