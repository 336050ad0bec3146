"""ToMe: the most similar pairs merge, every second token looking for its like among the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lib.pruning.base import Choice, Cues, Method
from lib.pruning.checks import check_scores, check_shape
from lib.pruning.merging import gather_rows
from lib.pruning.picking import budget
from lib.pruning.precision import cosine, product


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


def bipartite_merge(features: Tensor, keep: int | float) -> tuple[Tensor, Tensor]:
    """Merge the most similar pairs until `keep` tokens are left.

    Each round, every token at an even place offers itself to its most similar token at an odd place; the best offers are
    merged, at most all of them. Means weigh by how many tokens a token stands for.

    Parameters
    ----------
    features : [B, N, D].
    keep : count or ratio.

    Returns
    -------
    kept [B, k] int64, ascending places, and features [B, k, D] in the dtype of `features`, differentiable in them.

    Source: ToMe (arXiv 2210.09461), section 3.
    """
    check_shape("features", features, B=None, N=None, D=None)
    check_scores("features", features)
    batch, tokens, _ = features.shape
    count = budget(keep, tokens)
    place = torch.arange(tokens, device=features.device).expand(batch, -1)
    if count == tokens:
        return place, features
    value, size = features.float(), torch.ones(batch, tokens, 1, device=features.device)
    while place.shape[1] > count:
        left, right = slice(0, None, 2), slice(1, None, 2)
        offers = min(place.shape[1] - count, place[:, left].shape[1], place[:, right].shape[1] or 1)
        best, partner = cosine(*(value[:, side].detach() for side in (left, right))).max(-1)
        order = best.sort(dim=-1, descending=True, stable=True).indices
        gone, stay = order[:, :offers], order[:, offers:]
        target = partner.gather(1, gone)
        member = (target[..., None] == torch.arange(place[:, right].shape[1], device=place.device)).float()
        moved = gather_rows(size[:, left], gone)
        weight = size[:, right] + product(member.mT, moved)
        total = value[:, right] * size[:, right] + product(
            member.mT, gather_rows(value[:, left], gone) * moved
        )
        places = torch.cat([place[:, left].gather(1, stay), place[:, right]], 1)
        values = torch.cat([gather_rows(value[:, left], stay), total / weight], 1)
        sizes = torch.cat([gather_rows(size[:, left], stay), weight], 1)
        place, order = places.sort(dim=-1)
        value, size = gather_rows(values, order), gather_rows(sizes, order)
    return place, value.to(features.dtype)
