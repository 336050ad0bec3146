"""AdaptPrune, and FastV, whose cut it corrects: the tokens that the prompt's last one attends to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from lib.pruning.base import KEYS, Choice, Cues, Method, Needs
from lib.pruning.checks import check_flag, check_number, check_option
from lib.pruning.cues import centre_prior, last_query_saliency, recency_detrended
from lib.pruning.selection import ENGINES, adaptive_nms, top_k

PAPER_GRID = 24.0  # side of the grid on which AdaptPrune's constants were published


@dataclass(frozen=True, kw_only=True)
class FastV(Method):
    """The tokens that the last prompt token attends to most, two layers into the language model."""

    name: ClassVar[str] = "fastv"
    stage: ClassVar[str] = "decoder"
    paper: ClassVar[str] = (
        "Average attention received after layer 2 or 3; the lowest share of image tokens goes."
    )
    code: ClassVar[str] = (
        "Head mean of the last token's row; one sample's ranking serves the whole batch. Before layer 2 in its latency script, "
        "before layer 3 in its demo and in lmms-eval; a share becomes a count by floor, in its fork for transformers by rounding."
    )
    ours: ClassVar[str] = (
        "Head mean of the last real prompt token's row, each sample of a batch on its own; layer 2, floor."
    )

    positions: str = "original"  # released code
    layer: int = (
        2  # released latency script: attention of layer index 1, pruning before index 2; its demo has 3
    )

    def needs(self) -> Needs:
        return Needs(attention=True)

    def choose(self, cues: Cues) -> Choice:
        attention = last_query_saliency(self.see(cues, "attention"))
        return Choice(top_k(attention, self.budget(cues)), {"attention": attention})


@dataclass(frozen=True, kw_only=True)
class AdaptPrune(Method):
    """Attention in the language model, corrected towards the middle, thinned where tokens are near and alike.

    Source: AdaptPrune (arXiv 2503.08019), its released code; the constants belong to a 24x24 grid.
    """

    name: ClassVar[str] = "adaptprune"
    stage: ClassVar[str] = "decoder"
    paper: ClassVar[str] = (
        "Attention, spatial distance and token similarity together in an adaptive non-maximum suppression, "
        "after a correction of the attention's distribution."
    )
    code: ClassVar[str] = (
        "Layer 2, Gaussian of sigma 12 on a 24x24 grid (it knows no other), radius 5, sigmas 1.5 and 0.05, keys from the "
        "hidden state without layer norm; can pick a token twice; runs layer 1 twice."
    )
    ours: ClassVar[str] = (
        "The same scores and constants; a chosen token is never chosen again; any batch, and any grid, over which the "
        "Gaussian is stretched; attention is read once."
    )

    positions: str = "original"  # released code
    layer: int = 2  # released code
    centre: bool = True  # released code: the distribution correction
    recency: bool = (
        False  # our control: divide by the trend along the raster order, with or without the prior
    )
    spatial: bool = True  # released code; False: no window, distance never protects
    similarity: bool = True  # released code; False: neighbours fade by distance alone
    sigma_centre: float = 12.0  # released code
    radius: float = 5.0  # released code, grid cells
    sigma_distance: float = 1.5  # released code, grid cells
    sigma_similarity: float = 0.05  # released code, cosine
    keys: str = "raw"  # released code; "normed" is the key that the attention sees, before rotation
    scale_to_grid: bool = False  # our extension: cells of a 24x24 grid instead of cells of this one
    engine: str = "torch"  # what computes the choice; "triton" on a CUDA device

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        for flag in ("centre", "recency", "spatial", "similarity", "scale_to_grid"):
            check_flag(flag, getattr(self, flag))
        for sigma in ("sigma_centre", "sigma_distance", "sigma_similarity"):
            check_number(sigma, getattr(self, sigma), above=0.0)
        check_number("radius", self.radius, least=0.0)
        check_option("keys", self.keys, KEYS)
        check_option("engine", self.engine, ENGINES)

    def needs(self) -> Needs:
        return Needs(attention=True, keys=self.keys if self.similarity else None)

    def reads_grid(self) -> bool:
        return self.centre or self.spatial

    def choose(self, cues: Cues) -> Choice:
        attention = last_query_saliency(self.see(cues, "attention"))
        corrected = recency_detrended(attention) if self.recency else attention
        if self.centre:
            corrected = corrected * centre_prior(cues.grid, self.sigma_centre, attention.device)
        scores = {"attention": attention, "corrected": corrected}
        if not (self.spatial or self.similarity):
            return Choice(top_k(corrected, self.budget(cues)), scores)
        cell = math.sqrt(math.prod(cues.grid)) / PAPER_GRID if self.scale_to_grid else 1.0
        kept = adaptive_nms(
            corrected,
            self.see(cues, "keys") if self.similarity else None,
            cues.grid,
            self.budget(cues),
            radius=self.radius * cell if self.spatial else math.inf,
            sigma_distance=self.sigma_distance * cell if self.spatial else math.inf,
            sigma_similarity=self.sigma_similarity if self.similarity else math.inf,
            engine=self.engine,
        )
        return Choice(kept, scores)
