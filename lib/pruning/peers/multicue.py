"""MultiCue: all four cues at once, which no paper has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lib.pruning.adaptprune import PAPER_GRID
from lib.pruning.base import REWEIGHTED, Choice, Cues, Method, Needs
from lib.pruning.checks import check_flag, check_integer, check_number, check_option
from lib.pruning.cues import cls_saliency, decoupled_similarity, to_unit_range
from lib.pruning.selection import adaptive_nms, top_k


@dataclass(frozen=True, kw_only=True)
class MultiCue(Method):
    """All four cues at once: text and saliency score, distance and likeness thin out.

    No paper's method: the cue study's instrument, judged like the others.
    """

    name: ClassVar[str] = "multicue"
    stage: ClassVar[str] = "encoder"
    paper: ClassVar[str] = (
        "None: DeSAP's two scores with AdaptPrune's two suppressions, before the language model."
    )
    code: ClassVar[str] = "None."
    ours: ClassVar[str] = (
        "Task relevance and saliency, each scaled to 0..1 within its row and averaged; adaptive NMS by distance and by "
        "likeness of the projector's input. A cue that is off leaves its place empty; without a score all start equal."
    )

    text: bool = True
    saliency: bool = True
    spatial: bool = True
    redundancy: bool = True
    share: float = 0.5  # DeSAP's split of the budget, here the weight of the text's score
    radius: float = 5.0  # AdaptPrune's released code, cells of a 24x24 grid
    sigma_distance: float = 1.5  # likewise
    sigma_similarity: float = 0.05  # likewise
    saliency_layer: int = -1  # as DeSAP
    attention: str = "qq"  # as DeSAP

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        for flag in ("text", "saliency", "spatial", "redundancy"):
            check_flag(flag, getattr(self, flag))
        if not (self.text or self.saliency or self.spatial or self.redundancy):
            raise ValueError(
                "text, saliency, spatial and redundancy cannot all be off: use random as the empty arm"
            )
        check_number("share", self.share, least=0.0, most=1.0)
        check_number("radius", self.radius, least=0.0)
        check_number("sigma_distance", self.sigma_distance, above=0.0)
        check_number("sigma_similarity", self.sigma_similarity, above=0.0)
        check_integer("saliency_layer", self.saliency_layer)
        check_option("attention", self.attention, REWEIGHTED)

    def needs(self) -> Needs:
        return Needs(
            saliency_layer=self.saliency_layer if self.saliency else None,
            patches=self.attention if self.text else None,
            text=self.text,
        )

    def reads_grid(self) -> bool:
        return self.spatial

    def choose(self, cues: Cues) -> Choice:
        scores: dict[str, Tensor] = {}
        if self.text:
            local, tokens, image, sentence = (
                self.see(cues, part) for part in ("patches", "tokens", "image", "sentence")
            )
            scores["task"] = decoupled_similarity(
                local, tokens, image, sentence, self.see(cues, "text_valid")
            )
        if self.saliency:
            scores["saliency"] = cls_saliency(self.see(cues, "saliency"))
        weights = (
            {"task": self.share, "saliency": 1 - self.share}
            if len(scores) == 2
            else dict.fromkeys(scores, 1.0)
        )
        total = torch.zeros(cues.batch, cues.count, device=cues.features.device)
        for cue, map_ in scores.items():
            total = total + weights[cue] * to_unit_range(map_)
        total = total if scores else total + 1.0
        if not (self.spatial or self.redundancy):
            return Choice(top_k(total, self.budget(cues)), scores)
        cell = math.sqrt(math.prod(cues.grid)) / PAPER_GRID
        kept = adaptive_nms(
            total,
            cues.features if self.redundancy else None,
            cues.grid,
            self.budget(cues),
            radius=self.radius * cell if self.spatial else math.inf,
            sigma_distance=self.sigma_distance * cell if self.spatial else math.inf,
            sigma_similarity=self.sigma_similarity if self.redundancy else math.inf,
        )
        return Choice(kept, scores)
