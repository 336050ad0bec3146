"""DART: a few pivots, and the tokens that resemble them least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lib.pruning.base import Choice, Cues, Method, Needs
from lib.pruning.checks import check_integer, check_option
from lib.pruning.merging import gather_rows
from lib.pruning.picking import highest
from lib.pruning.precision import cosine, wide

TURNS = ("norm", "position")


@dataclass(frozen=True, kw_only=True)
class Dart(Method):
    """Pivots by the norm of their keys, visual tokens and words, and the tokens that resemble them least.

    Source: DART (arXiv 2502.11494).
    """

    name: ClassVar[str] = "dart"
    stage: ClassVar[str] = "decoder"
    paper: ClassVar[str] = "Duplication decides, not importance: tokens least similar to a few pivots stay."
    code: ClassVar[str] = (
        "Pivots: 4 visual tokens and 4 words after the image with the largest L1 norm of the rotated key in the layer before "
        "the cut. In turn each takes the same number, an eighth of the budget rounded down, of the unpicked visual tokens with "
        "the least cosine to it after the model's last norm: 4 + 8 floor(k / 8) stay, 68 for 64. The order of turns is that of "
        "a hash set."
    )
    ours: ClassVar[str] = (
        "The same pivots, keys and cosines. Exactly k stay: k without the visual pivots is shared among all pivots, evenly up to "
        "one. Turns by falling norm; a prompt with fewer words after the image has fewer pivots."
    )

    positions: str = "original"  # pruned inside the language model
    layer: int = 2  # released code
    pivots: int = 4  # released code: among the visual tokens
    text_pivots: int = 4  # released code: among the words after the image
    turns: str = "norm"  # our choice, falling norm; "position": as in the prompt; released: a hash set's

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        check_integer("pivots", self.pivots, least=1)
        check_integer("text_pivots", self.text_pivots, least=0)
        check_option("turns", self.turns, TURNS)

    def needs(self) -> Needs:
        return Needs(attended_keys=True, final_states=True)

    def choose(self, cues: Cues) -> Choice:
        count = self.budget(cues)
        norm = _length(self.see(cues, "attended_keys"))
        visual = highest(norm, min(self.pivots, count))
        states = self.see(cues, "final_states")
        heads, weight = gather_rows(states, visual), norm.gather(1, visual)
        there = torch.ones_like(visual, dtype=torch.bool)
        place = wide(visual)
        if self.text_pivots:
            valid = self.see(cues, "prompt_valid")
            words = _length(self.see(cues, "prompt_keys")).masked_fill(~valid, -torch.inf)
            text = highest(words, self.text_pivots)
            heads = torch.cat([heads, gather_rows(self.see(cues, "prompt_states"), text)], 1)
            weight = torch.cat([weight, words.gather(1, text)], 1)
            there = torch.cat([there, valid.gather(1, text)], 1)
            place = torch.cat([place, wide(text) + cues.count], 1)
        first = weight if self.turns == "norm" else -place
        order = highest(first.masked_fill(~there, -torch.inf), first.shape[1])
        likeness = cosine(gather_rows(heads, order), states)  # [B, P, N]
        pivots, missing = there.sum(1, keepdim=True), count - visual.shape[1]
        chosen = torch.zeros_like(norm, dtype=torch.bool).scatter(1, visual, True)
        for turn in range(order.shape[1]):
            share = ((turn + 1) * missing // pivots - turn * missing // pivots).where(turn < pivots, 0)
            unlike = highest((-likeness[:, turn]).masked_fill(chosen, -torch.inf), cues.count)
            chosen = chosen | (unlike.argsort(-1) < share)
        return Choice(highest(chosen.float(), count).sort(dim=-1).values, {"norm": norm})


def _length(keys: Tensor) -> Tensor:
    """L1 norm of each key, [B, N, d] to [B, N] float32."""
    return wide(keys).abs().sum(-1).float()
