"""FastV as released: the last prompt token's attention."""

from __future__ import annotations

from lib.study.parity.oracles import top_k
from lib.study.parity.trial import Case, Draw, Told


def rule(draw: Draw) -> Told:
    """The visual tokens with the highest head-mean attention of the last prompt token."""
    attention = draw.see("attention").mean(0)
    return Told({"attention": attention, "kept": sorted(top_k(attention, draw.keep))})


CASES = (
    Case(
        method="fastv",
        release="pkunlp-icler/FastV d165972",
        rule=rule,
        settled="A share becomes a count by floor, as released; its fork for transformers rounds (0.1 of 576: 58, not 57).",
    ),
)
