"""CDPruner: relevance to the question against likeness, by a determinantal point process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lib.pruning.base import Choice, Cues, Method, Needs
from lib.pruning.checks import check_flag
from lib.pruning.cues import decoupled_similarity
from lib.pruning.selection import dpp_map


@dataclass(frozen=True, kw_only=True)
class CDPruner(Method):
    """The most probable subset of a determinantal point process that weighs relevance against likeness.

    Source: CDPruner (arXiv 2506.10967), released code.
    """

    name: ClassVar[str] = "cdpruner"
    stage: ClassVar[str] = "encoder"
    paper: ClassVar[str] = (
        "Conditional diversity: kernel of relevance to the question and cosine of tokens, greedy search."
    )
    code: ClassVar[str] = (
        "Layer -2 in the joint space, negated mean cosine with the pieces of 77 tokens that the question is cut into (only the "
        "last piece holds the end token; the first, without it, says nothing), scaled over the whole batch. Past the rank of the "
        "kernel the search follows rounding noise, then fails."
    )
    ours: ClassVar[str] = (
        "The same, scaled to 0..1 within each row, so that batch mates change nothing; past the rank of the kernel the lowest "
        "positions fill the budget."
    )

    negated: bool = True  # released code

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        check_flag("negated", self.negated)

    def needs(self) -> Needs:
        return Needs(patches="penultimate", text=True, long_text="pieces", projected=True)

    def choose(self, cues: Cues) -> Choice:
        local, tokens, image, sentence = (
            self.see(cues, part) for part in ("patches", "tokens", "image", "sentence")
        )
        relevance = decoupled_similarity(
            local, tokens, image, sentence, self.see(cues, "text_valid"), aligned=False
        )  # mean over pieces
        relevance = -relevance if self.negated else relevance
        low, high = relevance.amin(-1, keepdim=True), relevance.amax(-1, keepdim=True)
        scaled = (relevance - low + 1e-6) / (high - low + 1e-6)  # above 0, as released code
        kept = dpp_map(scaled, self.see(cues, "projected"), self.budget(cues))
        return Choice(kept, {"task": scaled})
