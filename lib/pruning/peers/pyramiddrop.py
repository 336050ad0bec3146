"""PyramidDrop: fewer tokens at each of three depths, by the attention of the layer about to run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lib.pruning.base import Cues, Needs
from lib.pruning.checks import check_option
from lib.pruning.cues import last_query_saliency
from lib.pruning.peers.staged import Staged

READS = ("entering", "before")


@dataclass(frozen=True, kw_only=True)
class PyramidDrop(Staged):
    """The same share of the tokens goes at each of three depths, by the last prompt token's attention.

    Source: PyramidDrop (arXiv 2410.17247).
    """

    name: ClassVar[str] = "pyramiddrop"
    paper: ClassVar[str] = (
        "Four stages of equal depth; after each but the last a fixed share of the image tokens stays, by the attention of "
        "the instruction's last token."
    )
    code: ClassVar[str] = (
        "On entering layers 8, 16 and 24 of 32 the shares 0.5, 0.25 and 0.125 stay, rounded down, by queries and keys that "
        "the layer about to run makes of what enters it, softmax over all columns, head mean; positions counted anew."
    )
    ours: ClassVar[str] = (
        "The same scores. The share a cut follows from the budget, so that k are left after the last: with an eighth kept, the "
        "published counts. More tokens than k are there before it, unlike with a method that cuts once."
    )

    cuts: tuple[int, ...] = (8, 16, 24)  # released code, of 32 layers
    reads: str = "entering"  # released code; "before": the layer that ran before the cut, as FastV reads it

    def __post_init__(self) -> None:
        Staged.__post_init__(self)
        check_option("reads", self.reads, READS)

    def needs(self) -> Needs:
        return Needs(next_attention=self.reads == "entering", attention=self.reads == "before")

    def counts(self, tokens: int, keep: int) -> tuple[int, ...]:
        # Powers of a share miss a whole number by a rounding now and then: (1/8)^(2/3) of 576 is 144, not 143.
        share = keep / tokens
        ratios = (share ** (cut / self.stages) for cut in range(1, self.stages))
        return (*(max(keep, int(tokens * ratio + 1e-9)) for ratio in ratios), keep)

    def rank(self, cues: Cues) -> dict[str, Tensor]:
        row = "next_attention" if self.reads == "entering" else "attention"
        return {"attention": last_query_saliency(self.see(cues, row))}
