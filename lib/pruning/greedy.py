"""The greedy selections: pick one token, update the worth of the others, and again.

Built tables go to the device without waiting for it, and no value comes back.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from lib.pruning.checks import check_grid, check_number, check_option, check_scores, check_shape
from lib.pruning.picking import ORDERS, budget, first_highest, in_order, score_rows
from lib.pruning.precision import cosine


@torch.no_grad()
def adaptive_nms(
    scores: Tensor,
    features: Tensor | None,
    grid: tuple[int, int],
    keep: int | float,
    radius: float = 5.0,
    sigma_distance: float = 1.5,
    sigma_similarity: float = 0.05,
    order: str = "raster",
) -> Tensor:
    """Pick the highest score again and again, each time fading the neighbours that are near *and* look alike.

    After each pick t, every position p with grid distance d(p, t) <= ``radius`` has its score multiplied by
    ``1 - exp(-d^2 / (2 sigma_distance^2)) * exp(-(1 - cos)^2 / (2 sigma_similarity^2))``.

    Parameters
    ----------
    scores
        [B, N], meant to be non-negative (fading moves a score towards zero).
    features
        [B, N, D] whose cosine tells likeness; ``None`` where ``sigma_similarity`` is infinite.
    grid
        (rows, columns) of the tokens, raster order.
    keep
        Count or ratio.
    radius, sigma_distance
        In grid cells. Infinity switches them off: no window, and distance that never protects.
    sigma_similarity
        In units of cosine. Infinity switches likeness off: every neighbour in reach fades by its distance.
    order
        "raster" gives ascending positions, "picked" the order of picking.

    Returns
    -------
    Tensor
        [B, k] int64. A chosen token is never chosen again, also when every score left is zero, where the
        released code repeats itself; then the lowest position left comes next.

    Source: AdaptPrune, released code. Only the window's features are compared at each pick.
    """
    scores = score_rows("scores", scores)
    batch, tokens = scores.shape
    rows, columns = check_grid(grid, tokens)
    check_number("radius", radius, least=0.0, finite=False)
    check_number("sigma_distance", sigma_distance, above=0.0, finite=False)
    check_number("sigma_similarity", sigma_similarity, above=0.0, finite=False)
    check_option("order", order, ORDERS)
    count = budget(keep, tokens)
    nearby, nearness = _window(rows, columns, radius, sigma_distance, scores.device)

    likeness = None if math.isinf(sigma_similarity) else _unit_features(features, batch, tokens)
    # One more column collects what falls off the grid, so that every window has the same size.
    live = pad(scores, (0, 1))
    chosen = torch.zeros_like(live, dtype=torch.bool)
    chosen[:, tokens] = True
    picks = []
    for _ in range(count):
        pick = first_highest(live, chosen)  # [B]
        chosen = chosen.scatter(1, pick[:, None], True)
        picks.append(pick)
        window, fade = nearby[pick], nearness[pick]  # [B, W]
        if likeness is not None:
            gap = 1 - _window_cosine(likeness, pick, window)
            fade = fade * torch.exp(-0.5 * (gap / sigma_similarity) ** 2)
        live = live.scatter(1, window, live.gather(1, window) * (1 - fade))
    return in_order(picks, order)


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
        As in :func:`adaptive_nms`.

    Returns
    -------
    Tensor
        [B, k] int64.

    Source: DivPrune's max-min diversity problem.
    """
    check_shape("features", features, B=None, N=None, D=None)
    tokens = features.shape[1]
    count = budget(keep, tokens)
    check_option("order", order, ORDERS)
    check_scores("features", features)
    distance = 1 - cosine(features, features)
    # Rows of unit length are known to float32: what is closer than that is the same token.
    distance = distance.masked_fill(distance < 1e-6, 0.0)
    alone = torch.eye(tokens, dtype=torch.bool, device=features.device)
    nearest = distance.masked_fill(alone, torch.inf).amin(-1)
    chosen = torch.zeros_like(nearest, dtype=torch.bool)
    picks = []
    for step in range(count):
        pick = first_highest(nearest, chosen)
        chosen = chosen.scatter(1, pick[:, None], True)
        picks.append(pick)
        from_pick = _rows(distance, pick)
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
        As in :func:`adaptive_nms`.

    Returns
    -------
    Tensor
        [B, k] int64. Once every token left is a combination of the kept ones (its gain is below float32
        resolution) the lowest position left comes next.

    Source: CDPruner; incremental Cholesky of Chen et al. 2018 (arXiv 1709.05135), algorithm 1.
    """
    relevance = score_rows("relevance", relevance)
    batch, tokens = relevance.shape
    check_shape("features", features, B=batch, N=tokens, D=None)
    count = budget(keep, tokens)
    check_option("order", order, ORDERS)
    check_scores("features", features)
    kernel = relevance[:, :, None] * cosine(features, features) * relevance[:, None, :]
    gain = relevance**2
    floor = gain * 1e-6
    chosen = torch.zeros_like(gain, dtype=torch.bool)
    factor = gain.new_zeros(batch, count, tokens)
    picks = []
    for step in range(count):
        pick = first_highest(gain, chosen)
        chosen = chosen.scatter(1, pick[:, None], True)
        picks.append(pick)
        own_gain = gain.gather(1, pick[:, None])
        known = factor[:, :step]
        own = known.gather(2, pick[:, None, None].expand(-1, step, 1))
        row = _rows(kernel, pick) - (known * own).sum(1)
        # An exhausted pick has no gain to divide by and teaches nothing about the others.
        row = torch.where(own_gain > 0, row / own_gain.clamp_min(torch.finfo(gain.dtype).tiny).sqrt(), 0.0)
        factor[:, step] = row
        gain = gain - row**2
        gain = torch.where(gain > floor, gain, 0.0)
    return in_order(picks, order)


def _rows(matrix: Tensor, pick: Tensor) -> Tensor:
    return matrix.gather(1, pick[:, None, None].expand(-1, 1, matrix.shape[2])).squeeze(1)


def _unit_features(features: Tensor | None, batch: int, tokens: int) -> Tensor:
    if features is None:
        raise ValueError("features must be given unless sigma_similarity is infinite, got None")
    check_shape("features", features, B=batch, N=tokens, D=None)
    check_scores("features", features)
    return pad(normalize(features.float(), dim=-1), (0, 0, 0, 1))


def _window_cosine(unit: Tensor, pick: Tensor, window: Tensor) -> Tensor:
    """Cosine between each row's pick and its window: [B, W] from unit features [B, N + 1, D]."""
    batch, places, width = unit.shape
    start = torch.arange(batch, device=unit.device) * places
    flat = unit.view(-1, width)
    picked = flat.index_select(0, pick + start)
    around = flat.index_select(0, (window + start[:, None]).flatten()).view(batch, -1, width)
    return (around * picked[:, None]).sum(-1)


def _window(
    rows: int, columns: int, radius: float, sigma: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """For every position the positions in reach and their spatial factor, [N, W]; off the grid N and 0."""
    place = torch.arange(rows * columns)
    row, column = place[:, None] // columns, place[:, None] % columns
    down, across = (int(min(radius, side - 1)) for side in (rows, columns))
    if (2 * down + 1) * (2 * across + 1) < rows * columns:
        row_step = torch.arange(-down, down + 1).repeat_interleave(2 * across + 1)
        column_step = torch.arange(-across, across + 1).repeat(2 * down + 1)
        near = row_step**2 + column_step**2 <= radius**2
        row_step, column_step = row_step[near], column_step[near]
    else:  # a window as wide as the grid: every position against every other takes less room than the offsets
        row_step, column_step = row.T - row, column.T - column
    there_row, there_column = row + row_step, column + column_step
    squared = (row_step**2 + column_step**2).double().expand(there_row.shape)
    inside = (there_row >= 0) & (there_row < rows) & (there_column >= 0) & (there_column < columns)
    inside &= squared <= radius**2
    nearby = torch.where(inside, there_row * columns + there_column, rows * columns)
    factor = torch.where(inside, torch.exp(-0.5 * squared / sigma / sigma), 0.0).float()
    return nearby.to(device, non_blocking=True), factor.to(device, non_blocking=True)
