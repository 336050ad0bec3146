"""Finding duplicates by bipartite matching: every second token looks for its like among the others.

Shapes: B batch, N visual tokens, D feature width. Rounds are as many as the shapes say, never the data.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.pruning.checks import check_integer, check_scores, check_shape
from lib.pruning.merging import check_places, gather_rows
from lib.pruning.picking import budget
from lib.pruning.precision import cosine, cosine_table, unit


@torch.no_grad()
def drop_duplicates(features: Tensor, among: Tensor, keep: int, step: int) -> Tensor:
    """Drop the most duplicated tokens, `step` a round, until `keep` are left.

    Parameters
    ----------
    features : [B, N, D].
    among : [B, M] int64, ascending positions to choose among.
    keep : tokens that stay, 0 to M.
    step : tokens dropped a round; a round drops at most the even-placed half, the last one only what is too many.

    Returns
    -------
    Tensor
        [B, keep] int64, ascending.

    Memory: M x M cosines in float32 beside one float64 copy of the chosen features.

    Source: VisPruner (arXiv 2412.01818), released code.
    """
    check_shape("features", features, B=None, N=None, D=None)
    check_shape("among", among, B=features.shape[0], M=None)
    check_scores("features", features)
    check_integer("step", step, least=1)
    check_integer("keep", keep, least=0)
    if keep > among.shape[1]:
        raise ValueError(f"keep must be at most {among.shape[1]}, got {keep}")
    if keep == 0:
        return among[:, :0]
    check_places("among", among, features.shape[1])
    batch, total = among.shape
    if total == keep:
        return among
    # Who stands at an even place changes every round, so all pairs are compared once, ahead of the rounds.
    pairs = cosine_table(unit(gather_rows(features, among))).flatten(1)
    left = torch.arange(total, device=among.device).expand(batch, -1)  # places in `among`
    while left.shape[1] > keep:
        count = left.shape[1]
        even, odd = left[:, ::2], left[:, 1::2]
        drop = min(step, count - keep, max(1, even.shape[1] - (count % 2)))
        pair = even[:, :, None] * total + odd[:, None]
        twin = pairs.gather(1, pair.flatten(1)).view(pair.shape).amax(-1)
        stay = (-twin).sort(dim=-1, descending=True, stable=True).indices[:, : even.shape[1] - drop]
        left = torch.cat([even.gather(1, stay), odd], 1).sort(dim=-1).values
    return among.gather(1, left)


@torch.no_grad()
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
    kept [B, k] int64, ascending places, and features [B, k, D] in the dtype of `features`.

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
        best, partner = cosine(value[:, left], value[:, right]).max(-1)
        order = best.sort(dim=-1, descending=True, stable=True).indices
        gone, stay = order[:, :offers], order[:, offers:]
        target = partner.gather(1, gone)
        member = (target[..., None] == torch.arange(place[:, right].shape[1], device=place.device)).float()
        moved = gather_rows(size[:, left], gone)
        weight = size[:, right] + member.mT @ moved
        total = value[:, right] * size[:, right] + member.mT @ (gather_rows(value[:, left], gone) * moved)
        places = torch.cat([place[:, left].gather(1, stay), place[:, right]], 1)
        values = torch.cat([gather_rows(value[:, left], stay), total / weight], 1)
        sizes = torch.cat([gather_rows(size[:, left], stay), weight], 1)
        place, order = places.sort(dim=-1)
        value, size = gather_rows(values, order), gather_rows(sizes, order)
    return place, value.to(features.dtype)
