"""DivPrune: the tokens that lie farthest apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lib.pruning.base import Choice, Cues, Method, Needs
from lib.pruning.selection import max_min


@dataclass(frozen=True, kw_only=True)
class DivPrune(Method):
    """The tokens that lie farthest apart.

    Source: DivPrune (arXiv 2503.02175), from the paper alone.
    """

    name: ClassVar[str] = "divprune"
    stage: ClassVar[str] = "encoder"
    paper: ClassVar[str] = (
        "Greedy max-min diversity of the visual tokens in cosine distance; no attention, no text."
    )
    code: ClassVar[str] = "Not read: its licence is non-commercial. Run by an outside examiner."
    ours: ClassVar[str] = "The greedy rule on the projector's output, sums in double precision."

    def needs(self) -> Needs:
        return Needs(projected=True)

    def choose(self, cues: Cues) -> Choice:
        return Choice(max_min(self.see(cues, "projected"), self.budget(cues)))
