"""[CLS] top-k as FasterVLM released it."""

from __future__ import annotations

from lib.study.parity.oracles import top_k
from lib.study.parity.trial import Case, Draw, Told


def rule(draw: Draw) -> Told:
    """The patches with the highest [CLS] attention of layer -2, averaged over the heads."""
    saliency = draw.see("saliency").mean(0)
    return Told({"saliency": saliency, "kept": sorted(top_k(saliency, draw.keep))})


CASES = (
    Case(
        method="cls",
        release="Theia-4869/FasterVLM f5d5f12",
        rule=rule,
        settled="Nothing is left open.",
    ),
)
