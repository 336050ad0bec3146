"""ToMe: bipartite soft matching, restated from the paper."""

from __future__ import annotations

import numpy as np

from lib.study.parity.oracles import top_k, unit
from lib.study.parity.trial import Case, Draw, Told


def rule(draw: Draw) -> Told:
    """Rounds of at most half: the most similar pairs of an even and an odd place merge, means weighted by size."""
    places = list(range(draw.count))
    values, sizes = draw.see("features"), np.ones(draw.count)
    while len(places) > draw.keep:
        even, odd = list(range(0, len(places), 2)), list(range(1, len(places), 2))
        alike = unit(values[even]) @ unit(values[odd]).T
        offers = top_k(alike.max(1), min(len(places) - draw.keep, len(odd)))
        total, weight = values * sizes[:, None], sizes.copy()
        for offer in offers:
            partner = odd[int(alike[offer].argmax())]
            total[partner] += values[even[offer]] * sizes[even[offer]]
            weight[partner] += sizes[even[offer]]
        gone = {even[offer] for offer in offers}
        stay = [place for place in range(len(places)) if place not in gone]
        places, sizes = [places[place] for place in stay], weight[stay]
        values = total[stay] / sizes[:, None]
    return Told({"kept": places, "features": values})


CASES = (
    Case(
        method="tome",
        release="facebookresearch/ToMe af95e4b",
        rule=rule,
        settled="Restated from the paper: its code was not read for this project (non-commercial licence). Run beside ours by an "
        "outside examiner, it made the same pairs and means. There it merges keys in every layer; here once, after the encoder.",
    ),
)
