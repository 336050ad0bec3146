"""The neighbours: other published ways to drop visual tokens, as compositions of the shared pieces.

Each keeps exactly k distinct tokens in raster order; where a method's own rule would give more or fewer, its row says
how it was made comparable. All of them here choose once; those that prune in several stages are not among them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lib.pruning.base import REWEIGHTED, Choice, Cues, Method, Needs
from lib.pruning.checks import (
    check_flag,
    check_grid,
    check_integer,
    check_number,
    check_option,
    check_scores,
)
from lib.pruning.cues import cls_saliency, decoupled_similarity, to_unit_range
from lib.pruning.duplicates import bipartite_merge
from lib.pruning.merging import gather_rows, join
from lib.pruning.picking import budget, highest, others
from lib.pruning.precision import cosine, product
from lib.pruning.selection import adaptive_nms, lattice_places, max_min, top_k, uniform_grid


@dataclass(frozen=True, kw_only=True)
class Pooling(Method):
    """Average pooling: every token joins the nearest of k evenly spread places."""

    name: ClassVar[str] = "pool"
    stage: ClassVar[str] = "encoder"
    paper: ClassVar[str] = "Average pooling of the grid, a baseline in several papers' tables."
    code: ClassVar[str] = "Windows of equal size, so only some budgets exist."
    ours: ClassVar[str] = "Any budget: windows are the cells nearest to k evenly spread places."

    def reads_grid(self) -> bool:
        return True

    def choose(self, cues: Cues) -> Choice:
        check_scores("features", cues.features)
        places = uniform_grid(cues.grid, self.budget(cues)).to(cues.features.device, non_blocking=True)
        kept = places.expand(cues.batch, -1)
        cells = _cells(cues.grid, cues.features.device)
        # Places are rounded down, so of two that are equally near the later one is the nearer.
        centres = cells[places] - 0.25
        nearest = (cells[:, None] - centres).square().sum(-1).argmin(-1)
        return Choice(kept, {}, join(cues.features, kept, nearest.expand(cues.batch, -1)))


@dataclass(frozen=True, kw_only=True)
class Downsample(Method):
    """The image itself made smaller, so that the encoder cuts it into fewer patches."""

    name: ClassVar[str] = "downsample"
    stage: ClassVar[str] = "encoder"
    paper: ClassVar[str] = "VTC-Bench: a smaller image beats many methods, so it is the baseline to beat."
    code: ClassVar[str] = "The processor's resolution is lowered, on models that take any."
    ours: ClassVar[str] = (
        "Any budget: the smallest nearly square image with at least k patches, position embeddings interpolated; patches too "
        "many leave evenly; each stands at its place in the full grid."
    )

    def lattice(self, grid: tuple[int, int]) -> tuple[int, int]:
        rows, columns = check_grid(grid)
        count = budget(self.keep, rows * columns, self.rounding)
        lines = min(rows, max(round(math.sqrt(count * rows / columns)), math.ceil(count / columns)))
        return lines, math.ceil(count / lines)

    def reads_grid(self) -> bool:
        return True

    def choose(self, cues: Cues) -> Choice:
        places = lattice_places(cues.grid, self.lattice(cues.grid))
        count = self.budget(cues)
        stay = [(2 * place + 1) * len(places) // (2 * count) for place in range(count)]
        kept = torch.tensor(places)[stay].to(cues.features.device, non_blocking=True)
        return Choice(kept.expand(cues.batch, -1))


@dataclass(frozen=True, kw_only=True)
class CentreCrop(Method):
    """The k tokens nearest to the middle of the image."""

    name: ClassVar[str] = "centre_crop"
    stage: ClassVar[str] = "any"
    paper: ClassVar[str] = "A control for the habit of photographs to show things in the middle."
    code: ClassVar[str] = "None."
    ours: ClassVar[str] = (
        "Exactly k tokens by distance from the middle; of equal distances the lower position stays."
    )

    def reads_grid(self) -> bool:
        return True

    def choose(self, cues: Cues) -> Choice:
        cells = _cells(cues.grid, cues.features.device)
        middle = (torch.tensor(cues.grid, dtype=torch.float64, device=cells.device) - 1) / 2
        nearness = -(cells - middle).square().sum(-1).float()
        return Choice(top_k(nearness.expand(cues.batch, -1), self.budget(cues)))


@dataclass(frozen=True, kw_only=True)
class VisionZip(Method):
    """The most salient tokens, and a few that stand for the rest.

    Source: VisionZip (arXiv 2412.04467).
    """

    name: ClassVar[str] = "visionzip"
    stage: ClassVar[str] = "encoder"
    paper: ClassVar[str] = (
        "Dominant tokens by [CLS] attention; the others merge into contextual tokens by key similarity."
    )
    code: ClassVar[str] = (
        "Layer -2; 54 dominant (with [CLS]) and 10 contextual of 64; every step-th token left is a target, and "
        "the mean of its members is added to it."
    )
    ours: ClassVar[str] = (
        "The same without the [CLS] token among the kept, so its 64 are 63 here; the contextual share is a field."
    )

    contextual: float = 10 / 64  # released code, 10 of 64
    saliency_layer: int = -2  # released code

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        check_number("contextual", self.contextual, least=0.0, most=1.0)
        check_integer("saliency_layer", self.saliency_layer)

    def needs(self) -> Needs:
        return Needs(saliency_layer=self.saliency_layer, vision_keys=self.saliency_layer)

    def choose(self, cues: Cues) -> Choice:
        saliency = cls_saliency(self.see(cues, "saliency"))
        keys = self.see(cues, "vision_keys")
        check_scores("features", cues.features)
        count = self.budget(cues)
        contextual = round(self.contextual * count)
        dominant = highest(saliency, count - contextual)
        rest = others(dominant, cues.count)
        step = max(1, rest.shape[1] // max(1, contextual))
        targets = rest[:, ::step][:, :contextual]
        kept = torch.cat([dominant, targets], 1).sort(dim=-1).values
        if contextual == 0 or rest.shape[1] == contextual:
            return Choice(kept, {"saliency": saliency})
        nearest = cosine(gather_rows(keys, rest), gather_rows(keys, targets)).argmax(-1)
        member = (nearest[..., None] == torch.arange(contextual, device=rest.device)).float()
        is_target = (rest[..., None] == targets[:, None]).any(-1)
        member = member.masked_fill(is_target[..., None], 0.0)
        features = gather_rows(cues.features, rest).float()
        mean = product(member.mT, features) / member.sum(1)[..., None].clamp_min(1.0)
        rewritten = cues.features.float().scatter_add(
            1, targets[..., None].expand(-1, -1, features.shape[2]), mean
        )
        return Choice(kept, {"saliency": saliency}, gather_rows(rewritten, kept).to(cues.features.dtype))


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


@dataclass(frozen=True, kw_only=True)
class ToMe(Method):
    """Merge the most similar pairs, round by round, until k tokens are left.

    Source: ToMe (arXiv 2210.09461), from the paper alone.
    """

    name: ClassVar[str] = "tome"
    stage: ClassVar[str] = "encoder"
    paper: ClassVar[str] = (
        "Bipartite soft matching of keys merges r pairs in every layer of a vision transformer."
    )
    code: ClassVar[str] = "Not read: its licence is non-commercial. Run by an outside examiner."
    ours: ClassVar[str] = (
        "The matching alone, on the projector's input after the encoder, in rounds of at most half; a merged token stays at "
        "its partner's place; means weigh by size."
    )

    def choose(self, cues: Cues) -> Choice:
        kept, features = bipartite_merge(cues.features, self.budget(cues))
        return Choice(kept, {}, features)


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
            parts = [self.see(cues, part) for part in ("patches", "tokens", "image", "sentence")]
            scores["task"] = decoupled_similarity(*parts, self.see(cues, "text_valid"))
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
        cell = math.sqrt(math.prod(cues.grid)) / 24.0
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


def _cells(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Row and column of each position: [N, 2] float64."""
    rows, columns = check_grid(grid)
    place = torch.arange(rows * columns, device=device)
    return torch.stack([place // columns, place % columns], -1).double()
