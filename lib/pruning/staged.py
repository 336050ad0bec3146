"""Methods that cut several times on the way through the language model, each time among what is left."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lib.pruning.base import Choice, Cues, Method, Needs
from lib.pruning.checks import check_number, check_scores, check_shape
from lib.pruning.cues import last_query_saliency
from lib.pruning.picking import highest
from lib.pruning.precision import wide


@dataclass(frozen=True, kw_only=True)
class Staged(Method):
    """A method with several cuts; `keep` is what stays after the last one.

    Parameters
    ----------
    depths
        Where the cuts lie, as shares of the decoder's depth, ascending in (0, 1).
    """

    stage: ClassVar[str] = "staged"

    depths: tuple[float, ...]

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        if not isinstance(self.depths, tuple) or not self.depths:
            raise ValueError(f"depths must be a tuple of shares in (0, 1), got {self.depths!r}")
        for depth in self.depths:
            check_number("depths", depth, above=0.0, most=1.0)
        if list(self.depths) != sorted(set(self.depths)) or self.depths[-1] >= 1:
            raise ValueError(f"depths must ascend and stay below 1, got {self.depths!r}")

    def schedule(self, layers: int) -> tuple[int, ...]:
        """The nearest whole layers, each cut at least one layer after the one before."""
        cuts: list[int] = []
        for depth in self.depths:
            cuts.append(max(math.floor(depth * layers + 0.5), cuts[-1] + 1 if cuts else 1))
        if cuts[-1] >= layers:
            raise ValueError(
                f"depths={self.depths!r} ask for cuts at layers {cuts} of a decoder with {layers}"
            )
        return tuple(cuts)

    def left(self, tokens: int) -> tuple[int, ...]:
        """How many of `tokens` are left after each cut."""
        return self.counts(tokens, *super().left(tokens))

    @abstractmethod
    def counts(self, tokens: int, keep: int) -> tuple[int, ...]:
        """Tokens left after each cut; the last is `keep`."""

    @abstractmethod
    def rank(self, cues: Cues) -> dict[str, Tensor]:
        """The scores, [B, N]; the first of them decides."""

    def choose(self, cues: Cues) -> Choice:
        scores = self.rank(cues)
        deciding = next(iter(scores.values()))
        if cues.among is not None:
            gone = torch.ones_like(deciding, dtype=torch.bool).scatter(1, cues.among, False)
            deciding = deciding.masked_fill(gone, -torch.inf)
        count = self.left(cues.count)[cues.stage]
        return Choice(highest(deciding, count).sort(dim=-1).values, scores)


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
        "Scores from the queries and keys of the layer about to run, positions counted anew at each stage."
    )
    ours: ClassVar[str] = (
        "The share follows from the budget, so that exactly k are left after the last cut; before it more are there than with "
        "a method that cuts once. Attention of the layer before the cut, as FastV."
    )

    depths: tuple[float, ...] = (0.25, 0.5, 0.75)  # paper: layers 8, 16 and 24 of 32

    def needs(self) -> Needs:
        return Needs(attention=True)

    def counts(self, tokens: int, keep: int) -> tuple[int, ...]:
        cuts = len(self.depths)
        share = keep / tokens
        return (*(max(keep, round(tokens * share ** ((cut + 1) / cuts))) for cut in range(cuts - 1)), keep)

    def rank(self, cues: Cues) -> dict[str, Tensor]:
        return {"attention": last_query_saliency(self.see(cues, "attention"))}


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
        "Cuts at layers 2, 6 and 15 of 32 to 66, 30 and 17 tokens for a mean of 64; recycled tokens come on top; the second "
        "version cancels them and keeps positions."
    )
    ours: ClassVar[str] = (
        "The cuts and proportions of the setting for 64, scaled so that exactly k are left after the last; no recycling; a "
        "prompt of equally relevant words rates with all of them."
    )

    positions: str = "original"  # second version of the released code
    depths: tuple[float, ...] = (2 / 32, 6 / 32, 15 / 32)  # released code
    profile: tuple[float, ...] = (
        66 / 17,
        30 / 17,
        1.0,
    )  # released code for 64: tokens after each cut over the last

    def __post_init__(self) -> None:
        Staged.__post_init__(self)
        if not isinstance(self.profile, tuple) or len(self.profile) != len(self.depths):
            raise ValueError(f"profile must be a tuple with one number a cut, got {self.profile!r}")
        for number in self.profile:
            check_number("profile", number, least=1.0)
        if list(self.profile) != sorted(self.profile, reverse=True) or self.profile[-1] != 1.0:
            raise ValueError(f"profile must descend to 1.0, got {self.profile!r}")

    def needs(self) -> Needs:
        return Needs(prompt=True, projected=True)

    def counts(self, tokens: int, keep: int) -> tuple[int, ...]:
        return tuple(min(tokens, round(keep * times)) for times in self.profile)

    def rank(self, cues: Cues) -> dict[str, Tensor]:
        rows, valid = self.see(cues, "prompt_attention"), self.see(cues, "prompt_valid").bool()
        raters = relevant_words(self.see(cues, "projected"), self.see(cues, "prompt"), valid)
        check_shape("prompt_attention", rows, B=cues.batch, T=raters.shape[1], N=cues.count)
        check_scores("prompt_attention", rows)
        share = wide(raters) / wide(raters).sum(-1, keepdim=True)
        return {"raters": (share[:, None] @ wide(rows)).squeeze(1).float()}


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
