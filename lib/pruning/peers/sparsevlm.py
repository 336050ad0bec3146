"""SparseVLM: the question's visually relevant words rate the tokens, in its two published versions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from lib.pruning.base import Cues, Needs
from lib.pruning.checks import check_integer, check_option, check_shape
from lib.pruning.peers.staged import Staged
from lib.pruning.picking import highest
from lib.pruning.precision import wide

# Tokens of 576 after each cut, by version and by the mean a layer that the setting is named after.
LISTS: Mapping[str, Mapping[int, tuple[int, ...]]] = MappingProxyType(
    {
        "v1": MappingProxyType({64: (66, 30, 17), 96: (238, 48, 26), 128: (303, 110, 36), 192: (300, 200, 110)}),
        "v2": MappingProxyType({64: (66, 34, 20), 96: (246, 54, 28), 128: (238, 108, 60), 192: (300, 200, 118)}),
    }
)  # fmt: skip
PLACES: Mapping[str, str] = MappingProxyType({"v1": "renumbered", "v2": "original"})
NEAR_ZERO = 1e-6  # a distance factor below this counts as this: nothing is divided by zero


@dataclass(frozen=True, kw_only=True)
class SparseVLM(Staged):
    """The tokens that the question's visually relevant words attend to, cut at three depths.

    Source: SparseVLM (arXiv 2410.04417).
    """

    name: ClassVar[str] = "sparsevlm"
    paper: ClassVar[str] = (
        "Words that match the image rate the visual tokens by their attention; cuts at several layers; dropped tokens are "
        "partly recycled into clusters."
    )
    code: ClassVar[str] = (
        "Layers 2, 6 and 15 of 32 run in full, their own attention rates, what leaves them is cut: 3, 7 and 16 are the first "
        "short ones. 66, 30 and 17 of 576 stay for a mean of 64 (default is 192: 300, 200, 110); recycled tokens come on top. "
        "First version: head mean, positions counted anew. Second: attention over what distance alone gives, mean of the 14 "
        "heads that look most at the image, positions kept, nothing recycled, other counts (66, 34, 20)."
    )
    ours: ClassVar[str] = (
        "Both versions, by a field, without recycling. k are left after the last cut, the counts before keep the proportions of "
        "the list that `setting` names: keep=17 of 576 gives 66, 30, 17, and keep=110 with setting=192 gives 300, 200, 110. A "
        "prompt of equally relevant words rates with all of them."
    )

    # pyrefly: ignore[bad-override]  # None is a value here alone
    positions: str | None = None  # None: as the version has it, renumbered in v1, original in v2
    cuts: tuple[int, ...] = (3, 7, 16)  # released code, of 32 layers: behind layers 2, 6 and 15
    version: str = "v1"  # released code: the first; "v2" its second
    setting: int = 64  # our choice among the released lists of counts, named by their mean tokens a layer
    heads: int = 14  # released code, second version: heads that count

    def __post_init__(self) -> None:
        check_option("version", self.version, tuple(LISTS))
        if self.positions is None:
            object.__setattr__(self, "positions", PLACES[self.version])
        Staged.__post_init__(self)
        check_integer("heads", self.heads, least=1)
        if check_integer("setting", self.setting) not in LISTS[self.version]:
            known = ", ".join(map(str, LISTS[self.version]))
            raise ValueError(f"setting must be one of {known}, got {self.setting!r}")
        if self.stages != len(self.listed):
            raise ValueError(
                f"layers and cuts must be {len(self.listed)}, as the published counts are, got {self.stages}"
            )

    @property
    def listed(self) -> tuple[int, ...]:
        """The published counts of this setting."""
        return LISTS[self.version][self.setting]

    def needs(self) -> Needs:
        return Needs(prompt=True, projected=True, rotary=self.version == "v2")

    def counts(self, tokens: int, keep: int) -> tuple[int, ...]:
        return tuple(min(tokens, round(keep * count / self.listed[-1])) for count in self.listed)

    def rank(self, cues: Cues) -> dict[str, Tensor]:
        rows, valid = self.see(cues, "prompt_attention"), self.see(cues, "prompt_valid")
        raters = relevant_words(self.see(cues, "projected"), self.see(cues, "prompt"), valid)
        check_shape("prompt_attention", rows, B=cues.batch, H=None, T=raters.shape[1], N=cues.count)
        rows = wide(rows)
        if self.version == "v2":
            rows = rows / distance_factor(self.see(cues, "prompt_rotary"), self.see(cues, "rotary"))[:, None]
        share = wide(raters) / wide(raters).sum(-1, keepdim=True)
        seen = (share[:, None, None] @ rows).squeeze(2)  # [B, H, N], mean over the raters
        if self.version == "v2":
            most = highest(seen.sum(-1), min(self.heads, seen.shape[1]))
            seen = seen.gather(1, most[..., None].expand(-1, -1, cues.count))
        return {"raters": seen.mean(1).float()}


def relevant_words(visual: Tensor, words: Tensor, valid: Tensor) -> Tensor:
    """The words that the image's tokens match better than the average word.

    Parameters
    ----------
    visual : [B, N, W] visual tokens as they enter the language model.
    words : [B, T, W] the prompt's words likewise.
    valid : [B, T] bool, words to choose among; at least one a row.

    Returns
    -------
    [B, T] bool; all valid words of a row in which none is above the average.

    Source: SparseVLM, softmax over words of the products, averaged over visual tokens.
    """
    check_shape("projected", visual, B=None, N=None, W=None)
    check_shape("prompt", words, B=visual.shape[0], T=None, W=visual.shape[2])
    check_shape("prompt_valid", valid, B=words.shape[0], T=words.shape[1])
    match = (
        (wide(visual) @ wide(words).mT).masked_fill(~valid[:, None], -torch.inf).softmax(-1).mean(1).float()
    )
    average = match.sum(-1, keepdim=True) / valid.sum(-1, keepdim=True)
    above = (match > average) & valid
    return torch.where(above.any(-1, keepdim=True), above, valid)


def distance_factor(words: Tensor, tokens: Tensor) -> Tensor:
    """What rotary positions alone make of the product of a word and a token, were all their features ones.

    Parameters
    ----------
    words, tokens : [B, T, R] and [B, N, R], cosines and sines of their rotary angles side by side; R is twice a head's width d.

    Returns
    -------
    [B, T, N]: d^-1/2 times the sum over d/2 frequencies of twice the cosine of (position of word - position of token) times
    frequency.

    Source: SparseVLM, second version of the released code.
    """
    check_shape("rotary", tokens, B=None, N=None, R=None)
    check_shape("prompt_rotary", words, B=tokens.shape[0], T=None, R=tokens.shape[2])
    factor = wide(words) @ wide(tokens).mT / math.sqrt(tokens.shape[2] / 2)
    return factor.where(factor.abs() >= NEAR_ZERO, NEAR_ZERO)
