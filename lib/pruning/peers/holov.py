"""HoloV: salient tokens crop by crop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lib.pruning.base import Choice, Cues, Method, Needs
from lib.pruning.checks import check_integer, check_number
from lib.pruning.cues import cls_saliency
from lib.pruning.picking import highest
from lib.pruning.precision import cosine_table, unit, wide


@dataclass(frozen=True, kw_only=True)
class HoloV(Method):
    """Salient tokens crop by crop, so that no part of the image is left out.

    Source: HoloV (arXiv 2510.02912), released code.
    """

    name: ClassVar[str] = "holov"
    stage: ClassVar[str] = "encoder"
    paper: ClassVar[str] = (
        "The budget is shared among crops by attention and variety; within a crop attention decides."
    )
    code: ClassVar[str] = (
        "16 runs of tokens as crops (its file for Qwen: 16/9 of N/K), [CLS] attention of layer -2. A token weighs 1000 x "
        "attention + 0.09 x variance of the likeness, of the projector's outputs, in its crop, the variance first scaled to the "
        "crop's mean of 1000 x attention: so it cancels, and a crop's weight is 1090 x its mean attention. Seats are rounded "
        "down, one more each to the heaviest crops; a full crop's surplus is lost and rows of zeros stand for it."
    )
    ours: ClassVar[str] = (
        "The same weights, seats and crops, raster order. Exactly k: what a full crop cannot take goes to the tokens with the "
        "most attention anywhere."
    )

    crops: int | None = (
        16  # released code for LLaVA; None: its file for Qwen, max(1, 16/9 of N/K rounded down)
    )
    attention_weight: float = 1000.0  # released code
    variety_weight: float = 0.09  # released code; it cancels but for a millionth
    saliency_layer: int = -2  # released code

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        if self.crops is not None:
            check_integer("crops", self.crops, least=1)
        check_number("attention_weight", self.attention_weight, least=0.0)
        check_number("variety_weight", self.variety_weight, least=0.0)
        check_integer("saliency_layer", self.saliency_layer)

    def needs(self) -> Needs:
        return Needs(saliency_layer=self.saliency_layer, projected=True)

    def choose(self, cues: Cues) -> Choice:
        saliency, projected = cls_saliency(self.see(cues, "saliency")), self.see(cues, "projected")
        count = self.budget(cues)
        crops = max(1, 16 * cues.count // (9 * count)) if self.crops is None else self.crops
        seat, member, valid = runs(cues.count, min(crops, cues.count), saliency.device)
        weight = self.attention_weight * wide(saliency)[:, member].masked_fill(~valid, 0.0)  # [B, C, S]
        size = valid.sum(-1, keepdim=True)  # [C, 1]
        variety = spread_of_likeness(projected, member, valid)
        level, usual = (part.sum(-1, keepdim=True) / size for part in (weight, variety))
        score = weight + self.variety_weight * variety * level / (usual + 1e-6)
        quota = seats(score.sum(-1) / size[:, 0], count)  # [B, C]
        order = highest(saliency[:, member].masked_fill(~valid, -torch.inf).flatten(0, 1), member.shape[1])
        rank = order.argsort(dim=-1).view(weight.shape)  # within its crop, ties to the lower position
        inside = (rank < quota[..., None]).flatten(1)[:, seat]
        # All inside come first, by attention; then, for seats that no crop had room for, all others by attention.
        ranked = highest(saliency, cues.count)
        first = highest(inside.gather(1, ranked).float(), count)
        scores = {"saliency": saliency, "score": score.flatten(1)[:, seat].float()}
        return Choice(ranked.gather(1, first).sort(dim=-1).values, scores)


def runs(tokens: int, crops: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Cut N tokens into C runs, the first N mod C of them one longer, and pad them to S, the longest.

    Returns ``seat`` [N], each token's place in the flattened [C, S] table; ``member`` [C, S], the token at each place
    (the last one of all where a run is too short) and ``valid`` [C, S], true where a place is taken.
    """
    crop = torch.arange(crops + 1, device=device)
    first = crop * (tokens // crops) + crop.clamp_max(tokens % crops)
    longest = -(-tokens // crops)
    member = first[:-1, None] + torch.arange(longest, device=device)
    valid = member < first[1:, None]
    place = torch.arange(tokens, device=device)
    short, ahead = (
        tokens // crops,
        tokens % crops * (tokens // crops + 1),
    )  # length of the others, tokens before them
    run = torch.where(place < ahead, place // (short + 1), (place - tokens % crops) // short)
    seat = run * longest + place - first[run]
    return seat, member.clamp_max(tokens - 1), valid


def spread_of_likeness(features: Tensor, member: Tensor, valid: Tensor) -> Tensor:
    """Variance of each token's cosines with its crop, its own counted as 0: [B, N, W], [C, S], [C, S] -> [B, C, S]."""
    batch, (crops, longest) = features.shape[0], member.shape
    both = valid[:, :, None] & valid[:, None] & ~torch.eye(longest, dtype=torch.bool, device=valid.device)
    rows = unit(features.index_select(1, member.flatten())).reshape(batch * crops, longest, -1)
    alike = wide(cosine_table(rows)).unflatten(0, (batch, crops)).masked_fill(~both, 0.0)
    others = (valid.sum(-1) - 1).clamp_min(1)[:, None]  # [C, 1]
    mean = alike.sum(-1) / others
    return ((alike - mean[..., None]).square() * valid[:, None]).sum(-1).masked_fill(~valid, 0.0) / others


def seats(weight: Tensor, total: int) -> Tensor:
    """Share `total` seats by `weight` [B, C]: whole parts, and one more each to the heaviest (ties to the lower place).

    A row of zero weight shares evenly. Returns [B, C] int64 that sum up to `total`.
    """
    whole = weight.sum(-1, keepdim=True)
    share = torch.where(
        whole > 0, weight / whole.clamp_min(torch.finfo(weight.dtype).tiny), 1 / weight.shape[1]
    )
    given = (total * share).floor().long()
    place = highest(weight, weight.shape[1]).argsort(dim=-1)
    return given + (place < total - given.sum(-1, keepdim=True))
