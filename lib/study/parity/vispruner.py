"""VisPruner as released: the most salient tokens, and a list of the others that loses its duplicates."""

from __future__ import annotations

import numpy as np

from lib.study.parity.oracles import top_k, unit
from lib.study.parity.trial import Case, Draw, Told

STEP = 8


def rule(draw: Draw, important: float) -> Told:
    """Important tokens by [CLS] attention; the rest by rounds over a list in falling attention."""
    saliency = draw.see("saliency").mean(0)
    kept, stopped = select(saliency, draw.see("features"), draw.keep, important)
    return Told({"saliency": saliency, "kept": kept}, stopped)


def select(saliency: np.ndarray, features: np.ndarray, keep: int, important: float) -> tuple[list[int], str]:
    """The kept tokens, ascending, and "stops" where the release raises an error (ours then goes on, as it declares).

    The release pairs even and odd places one to one, so it raises on a list of odd length, and it always drops what is
    asked for, so it raises on fewer pairs than that.
    """
    order = top_k(saliency, len(saliency))
    first = int(keep * important)
    picked, listed = order[:first], order[first:]
    target, stopped = keep - first, ""
    alike = unit(features) @ unit(features).T
    while target and len(listed) > target:
        even, odd = listed[::2], listed[1::2]
        drop = min(STEP, len(listed) - target)
        if len(even) != len(odd) or drop > len(even):
            stopped = "stops"
        twin = alike[np.ix_(even, odd)].max(1)
        ranked = [even[place] for place in top_k(twin, len(even))]
        listed = ranked[drop:] + odd
    return sorted(picked + (listed if target else [])), stopped


CASES = tuple(
    Case(
        method="vispruner",
        setting=f"important={important}",
        fields={"important": important},
        release="Theia-4869/VisPruner aefa01a",
        rule=lambda draw, important=important: rule(draw, important),
        settled="Double precision: rounding decides who meets whom, so the release itself keeps other tokens in half precision. "
        "Where it stops with an error, ours goes on and drops at most all even places.",
    )
    for important in (0.5, 0.75)
)
