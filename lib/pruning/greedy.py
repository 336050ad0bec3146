"""Greedy diversity: pick one token, update the worth of the others, and again."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.pruning.checks import check_option, check_scores, check_shape
from lib.pruning.picking import ORDERS, budget, first_highest, in_order, score_rows
from lib.pruning.precision import closest_cosine, cosine_table, unit


@torch.no_grad()
def max_min(features: Tensor, keep: int | float, order: str = "raster") -> Tensor:
    """Spread the kept tokens as far apart as possible in cosine distance, greedily.

    The first pick is the token whose nearest other token is farthest; each next one is the token farthest
    from its nearest kept token.

    Parameters
    ----------
    features
        [B, N, D].
    keep, order
        As in :func:`lib.pruning.suppression.adaptive_nms`.

    Returns
    -------
    Tensor
        [B, k] int64.

    Memory: no more than a few copies of ``features``, in float64.

    Source: DivPrune's max-min diversity problem.
    """
    check_shape("features", features, B=None, N=None, D=None)
    tokens = features.shape[1]
    count = budget(keep, tokens)
    check_option("order", order, ORDERS)
    check_scores("features", features)
    direction = unit(features)
    table = _table(direction)
    closest = closest_cosine(direction) if table is None else _off_diagonal_max(table)
    nearest = _distance(closest)
    chosen = torch.zeros_like(nearest, dtype=torch.bool)
    picks = []
    for step in range(count):
        pick = first_highest(nearest, chosen)
        chosen = chosen.scatter(1, pick[:, None], True)
        picks.append(pick)
        from_pick = _distance(_cosine_row(direction, table, pick))
        nearest = from_pick if step == 0 else torch.minimum(nearest, from_pick)
    return in_order(picks, order)


@torch.no_grad()
def dpp_map(relevance: Tensor, features: Tensor, keep: int | float, order: str = "raster") -> Tensor:
    """Greedy search for the most probable subset of a determinantal point process.

    The kernel is ``diag(r) S diag(r)`` with S the cosine similarity of ``features``: each pick adds the most
    to the log-determinant, so it is relevant and unlike what is already kept.

    Parameters
    ----------
    relevance
        [B, N], used as given. A determinant does not see its sign: scale it to be non-negative first.
    features
        [B, N, D].
    keep, order
        As in :func:`lib.pruning.suppression.adaptive_nms`.

    Returns
    -------
    Tensor
        [B, k] int64. Once every token left is a combination of the kept ones (its gain is below float32
        resolution) the lowest position left comes next.

    Memory: no more than a few copies of ``features`` in float64, and [B, k, N] float32.

    Source: CDPruner; incremental Cholesky of Chen et al. 2018 (arXiv 1709.05135), algorithm 1.
    """
    relevance = score_rows("relevance", relevance)
    batch, tokens = relevance.shape
    check_shape("features", features, B=batch, N=tokens, D=None)
    count = budget(keep, tokens)
    check_option("order", order, ORDERS)
    check_scores("features", features)
    direction = unit(features)
    table = _table(direction)
    gain = relevance**2
    floor = gain * 1e-6
    chosen = torch.zeros_like(gain, dtype=torch.bool)
    factor = gain.new_zeros(batch, count, tokens)
    picks = []
    for step in range(count):
        pick = first_highest(gain, chosen)
        chosen = chosen.scatter(1, pick[:, None], True)
        picks.append(pick)
        own_gain, own_relevance = gain.gather(1, pick[:, None]), relevance.gather(1, pick[:, None])
        known = factor[:, :step]
        own = known.gather(2, pick[:, None, None].expand(-1, step, 1))
        kernel = own_relevance * _cosine_row(direction, table, pick) * relevance
        row = kernel - (known * own).sum(1)
        # An exhausted pick has no gain to divide by and teaches nothing about the others.
        row = torch.where(own_gain > 0, row / own_gain.clamp_min(torch.finfo(gain.dtype).tiny).sqrt(), 0.0)
        factor[:, step] = row
        gain = gain - row**2
        gain = torch.where(gain > floor, gain, 0.0)
    return in_order(picks, order)


def _table(direction: Tensor) -> Tensor | None:
    """All cosines at once, [B, N, N] float32, where N <= 4 D; else ``None``.

    One product of matrices is quicker than k products with a vector. Up to 4 D the table takes no more than twice the
    room of the unit rows, which are there anyway in float64; beyond, rows one by one keep memory linear in N.
    """
    return cosine_table(direction) if direction.shape[1] <= 4 * direction.shape[2] else None


def _cosine_row(direction: Tensor, table: Tensor | None, pick: Tensor) -> Tensor:
    """Cosines of each batch row's pick with all tokens: [B, N] float32."""
    if table is not None:
        return _row(table, pick)
    return (direction @ _row(direction, pick)[..., None]).squeeze(-1).float()


def _row(matrix: Tensor, pick: Tensor) -> Tensor:
    return matrix.gather(1, pick[:, None, None].expand(-1, 1, matrix.shape[2])).squeeze(1)


def _off_diagonal_max(table: Tensor) -> Tensor:
    """The closest other of each token; leaves -inf on the table's diagonal, which no later step reads."""
    table.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    return table.amax(-1)


def _distance(cosine: Tensor) -> Tensor:
    """Cosine distance; rows of unit length are known to float32, so what is closer than that is the same token."""
    distance = 1 - cosine
    return distance.masked_fill(distance < 1e-6, 0.0)
