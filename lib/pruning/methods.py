"""The methods: frozen, keyword-only configurations made of cues, a selection and merging.

Every ablation is a field. ``NAMES`` lists the methods, ``make(name, **fields)`` builds one and ``rows()``
gives the table of what each paper says, what its released code does and what happens here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lib.pruning.base import KEYS, REWEIGHTED, Choice, Cues, Method, Needs
from lib.pruning.baselines import Blind, ClsTopK, NoPruning, Oracle, Random, UniformGrid
from lib.pruning.cdpruner import CDPruner
from lib.pruning.checks import check_flag, check_integer, check_number, check_option, check_shape
from lib.pruning.cues import (
    POOLINGS,
    centre_prior,
    cls_saliency,
    decoupled_similarity,
    key_tokens,
    last_query_saliency,
    recency_detrended,
    to_unit_range,
)
from lib.pruning.dart import Dart
from lib.pruning.holov import HoloV
from lib.pruning.merging import average_into_kept
from lib.pruning.peers import CentreCrop, DivPrune, Downsample, MultiCue, Pooling, ToMe, VisionZip
from lib.pruning.precision import wide
from lib.pruning.pyramiddrop import PyramidDrop
from lib.pruning.selection import ENGINES, adaptive_nms, split_top_k, top_k
from lib.pruning.sparsevlm import SparseVLM
from lib.pruning.trim import Trim
from lib.pruning.vispruner import VisPruner

__all__ = [
    "NAMES",
    "AdaptPrune",
    "Blind",
    "CDPruner",
    "CentreCrop",
    "Choice",
    "ClsTopK",
    "Cues",
    "Dart",
    "DeSAP",
    "DivPrune",
    "Downsample",
    "FastV",
    "HoloV",
    "Method",
    "MultiCue",
    "Needs",
    "NoPruning",
    "Oracle",
    "Pooling",
    "PyramidDrop",
    "Random",
    "SparseVLM",
    "ToMe",
    "Trim",
    "UniformGrid",
    "VisPruner",
    "VisionZip",
    "make",
    "rows",
]

SIMILARITIES = ("decoupled", "vanilla", "negated", "embedding")
COMBINATIONS = ("split", "sum")
PAPER_GRID = 24.0  # side of the grid on which AdaptPrune's constants were published


@dataclass(frozen=True, kw_only=True)
class DeSAP(Method):
    """Half the budget to patches that match the question, half to salient ones; the rest is averaged in.

    Two extensions of ours serve encoders that lack what the paper takes for granted. Without a [CLS] token, saliency is the
    attention that a patch receives (`Trace.saliency` says which). Without CLIP's text side, `similarity="embedding"`
    compares the projector's output with the language model's embeddings of the words after the image; means stand for
    [CLS] and [EOS].

    Source: DeSAP (arXiv 2604.11240), sections 3 and 4.
    """

    name: ClassVar[str] = "desap"
    stage: ClassVar[str] = "encoder"
    paper: ClassVar[str] = (
        "Similarity of the last vision layer's attention output (query-query weights) with the question, "
        "fine-grained alignment, half the budget; [CLS] attention over the rest, half the budget; each "
        "dropped token is averaged into its nearest kept token."
    )
    code: ClassVar[str] = "None released that could be found."
    ours: ClassVar[str] = (
        "The equations as printed. Read into them: post layer norm and visual projection for patches, text "
        "projection for every text token, unit-length rows, start and end tokens counted, a question too long for the "
        "text tower encoded in segments with start and end of their own, the projector's input averaged, kept tokens in "
        "raster order; the short prompt counts its positions anew unless `positions` says original."
    )

    share: float = 0.5  # paper section 4.3: k1 = k2 = K / 2
    combine: str = "split"  # paper Eq. 5; "sum" of both maps is our control
    similarity: str = "decoupled"  # paper section 3.2; "vanilla" is its baseline, "negated" as in TRIM
    attention: str = "qq"  # paper Eq. 2 and Table 4b
    aligned: bool = True  # paper Eq. 3; False is the plain cosine of its Table 5
    normalised: bool = True  # our reading: section 3.2 speaks of cosine similarity
    scale: float = 0.1  # paper: lambda
    pooling: str = "tokens"  # our choice; only without alignment, where the paper names none
    special_tokens: bool = True  # our choice; the paper counts "non-padded tokens"
    key_tokens: int | None = None  # paper B.1 filters long questions, number unknown; None keeps all
    merge: bool = True  # paper section 4.3
    saliency_layer: int = -1  # paper section 4.2: last layer; VisionZip and HoloV read -2

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        check_number("share", self.share, least=0.0, most=1.0)
        check_option("combine", self.combine, COMBINATIONS)
        check_option("similarity", self.similarity, SIMILARITIES)
        check_option("attention", self.attention, REWEIGHTED)
        for flag in ("aligned", "normalised", "special_tokens", "merge"):
            check_flag(flag, getattr(self, flag))
        check_number("scale", self.scale)
        check_option("pooling", self.pooling, POOLINGS)
        if self.key_tokens is not None:
            check_integer("key_tokens", self.key_tokens, least=1)
        if self.similarity == "embedding" and (self.key_tokens is not None or not self.special_tokens):
            raise ValueError(
                "key_tokens and special_tokens=False need a text tower, which similarity='embedding' has not"
            )
        check_integer("saliency_layer", self.saliency_layer)

    def needs(self) -> Needs:
        if self.similarity == "embedding":
            return Needs(
                saliency_layer=self.saliency_layer if self.share < 1 else None,
                projected=self.share > 0,
                words=self.share > 0,
            )
        patches = self.attention if self.similarity == "decoupled" else "hidden"
        return Needs(
            saliency_layer=self.saliency_layer if self.share < 1 else None,
            patches=patches if self.share > 0 else None,
            text=self.share > 0,
        )

    def choose(self, cues: Cues) -> Choice:
        count = self.budget(cues)
        scores: dict[str, Tensor] = {}
        if self.share > 0:
            scores["task"] = self.task(cues)
        if self.share < 1:
            scores["saliency"] = cls_saliency(self.see(cues, "saliency"))
        if len(scores) == 1:
            kept = top_k(next(iter(scores.values())), count)
        elif self.combine == "split":
            kept = split_top_k(scores["task"], scores["saliency"], count, self.share)
        else:
            task, saliency = (to_unit_range(scores[cue]) for cue in ("task", "saliency"))
            kept = top_k(self.share * task + (1 - self.share) * saliency, count)
        merged = average_into_kept(cues.features, kept) if self.merge else None
        return Choice(kept, scores, merged)

    def task(self, cues: Cues) -> Tensor:
        """The text cue's map, [B, N]."""
        if self.similarity == "embedding":
            return self._task_by_embedding(cues)
        valid = self.see(cues, "text_valid")
        if not self.special_tokens:
            special = self.see(cues, "text_special")
            check_shape("text_special", special, B=cues.batch, T=valid.shape[1])
            valid = valid & ~special
        if self.key_tokens is not None:
            valid = key_tokens(valid, self.see(cues, "text_importance"), self.key_tokens)
        parts = [self.see(cues, part) for part in ("patches", "tokens", "image", "sentence")]
        relevance = decoupled_similarity(
            *parts, valid, self.scale, self.aligned, normalised=self.normalised, pooling=self.pooling
        )
        return -relevance if self.similarity == "negated" else relevance

    def _task_by_embedding(self, cues: Cues) -> Tensor:
        """Our extension: means stand for the [CLS] and [EOS] tokens that this space lacks."""
        visual, words = self.see(cues, "projected"), self.see(cues, "prompt")
        valid = self.see(cues, "prompt_valid")
        image = wide(visual).mean(1)
        count = valid.sum(1, keepdim=True).clamp_min(1)
        sentence = wide(words).masked_fill(~valid[..., None], 0.0).sum(1) / count
        return decoupled_similarity(
            visual,
            words,
            image,
            sentence,
            valid,
            self.scale,
            self.aligned,
            normalised=self.normalised,
            pooling=self.pooling,
        )


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


_METHODS: dict[str, type[Method]] = {
    kind.name: kind
    for kind in (
        NoPruning,
        Random,
        UniformGrid,
        Blind,
        Oracle,
        CentreCrop,
        Pooling,
        Downsample,
        ClsTopK,
        FastV,
        DeSAP,
        AdaptPrune,
        VisionZip,
        VisPruner,
        Trim,
        DivPrune,
        CDPruner,
        HoloV,
        Dart,
        ToMe,
        PyramidDrop,
        SparseVLM,
        MultiCue,
    )
}
NAMES: tuple[str, ...] = tuple(_METHODS)


def make(name: str, **fields: object) -> Method:
    """Build the method called ``name``; refuse an unknown name or field and a missing ``keep``."""
    check_option("name", name, NAMES)
    kind = _METHODS[name]
    known = kind.known_fields()
    unknown = [field for field in fields if field not in known]
    if unknown:
        raise ValueError(f"{name} has no field {', '.join(unknown)}; known: {', '.join(known)}")
    if "keep" not in fields and kind not in (NoPruning, Blind):
        raise ValueError(f"keep must be given for {name}: a count or a ratio")
    return kind(**fields)


def rows() -> list[dict[str, str]]:
    """One row a method: name, what the paper says, what the released code does, what happens here."""
    return [kind.describe() for kind in _METHODS.values()]
