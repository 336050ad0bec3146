"""The greedy selections: pick one token, update the worth of the others, and again.

Built tables go to the device without waiting for it, and no value comes back.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from lib.pruning.checks import check_grid, check_number, check_option, check_scores, check_shape
from lib.pruning.picking import ENGINES, ORDERS, budget, first_highest, in_order, score_rows
from lib.pruning.precision import closest_cosine, cosine_table, unit, wide


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
    engine: str = "torch",
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
    engine
        "torch" runs anywhere. "triton" runs :mod:`lib.pruning.kernels` on a CUDA device; no device has verified it yet.

    Returns
    -------
    Tensor
        [B, k] int64. A chosen token is never chosen again, also when every score left is zero, where the
        released code repeats itself; then the lowest position left comes next.

    Raises
    ------
    ValueError
        On a bad argument, and where engine "triton" cannot take the inputs.

    Source: AdaptPrune, released code. Only the window's features are compared at each pick, so memory is linear
    in N (and in the window).
    """
    scores = score_rows("scores", scores)
    batch, tokens = scores.shape
    rows, columns = check_grid(grid, tokens)
    check_number("radius", radius, least=0.0, finite=False)
    check_number("sigma_distance", sigma_distance, above=0.0, finite=False)
    check_number("sigma_similarity", sigma_similarity, above=0.0, finite=False)
    check_option("order", order, ORDERS)
    check_option("engine", engine, ENGINES)
    count = budget(keep, tokens)
    if engine == "triton":
        from lib.pruning import kernels  # here: nothing else needs Triton

        kernels.check(scores, features, grid, radius, sigma_similarity)
        return kernels.adaptive_nms(
            scores, features, grid, count, radius, sigma_distance, sigma_similarity, order
        )
    reach = _reach(rows, columns, radius, sigma_distance, scores.device)
    likeness = None if math.isinf(sigma_similarity) else _likeness(features, batch, tokens)
    # A width so narrow that its square vanishes still has to give 0 for equal tokens, not 0 times infinity.
    steepness = min(0.5 / sigma_similarity / sigma_similarity, torch.finfo(torch.float32).max)
    # One more column collects what falls off the grid, so that every window has the same size.
    live = pad(scores, (0, 1))
    chosen = torch.zeros_like(live, dtype=torch.bool)
    chosen[:, tokens] = True
    picks = []
    for _ in range(count):
        pick = first_highest(live, chosen)  # [B]
        chosen.scatter_(1, pick[:, None], True)
        picks.append(pick)
        window, fade = reach(pick)  # [B, W]
        if likeness is not None:
            gap = 1 - likeness(pick, window)
            fade = torch.addcmul(fade, gap, gap, value=-steepness)
        live.scatter_(1, window, live.gather(1, window) * (1 - fade.exp_()))
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
        As in :func:`adaptive_nms`.

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


def _likeness(features: Tensor | None, batch: int, tokens: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A function that gives the cosines [B, W] between each row's pick [B] and its window [B, W].

    Products are taken element by element: a sum over one contiguous row has the same order wherever it stands.
    """
    if features is None:
        raise ValueError("features must be given unless sigma_similarity is infinite, got None")
    check_shape("features", features, B=batch, N=tokens, D=None)
    check_scores("features", features)
    length = torch.linalg.vector_norm(features.float(), dim=-1).clamp_min(1e-12)
    # Off the grid any token will do, since its factor is zero: the last one stands there once more.
    length = torch.cat([length, length[:, -1:]], dim=1)
    flat = features.reshape(batch * tokens, -1)
    start = torch.arange(batch, device=features.device) * tokens

    def likeness(pick: Tensor, window: Tensor) -> Tensor:
        picked = flat.index_select(0, pick + start).float() / length.gather(1, pick[:, None])
        places = (window.clamp_max(tokens - 1) + start[:, None]).flatten()
        around = flat.index_select(0, places).float().view(batch, window.shape[1], -1)
        return around.mul_(picked[:, None]).sum(-1) / length.gather(1, window)

    return likeness


def _reach(
    rows: int, columns: int, radius: float, sigma: float, device: torch.device
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A function from picks [B] to the positions in reach and the exponents of their nearness, both [B, W].

    Off the grid the position is N, and beyond the radius the exponent is -inf.
    """
    down, across = (int(min(radius, side - 1)) for side in (rows, columns))
    if (2 * down + 1) * (2 * across + 1) < rows * columns:
        tables = _windows(rows, columns, down, across, radius, sigma)
        nearby, exponent = (table.to(device, non_blocking=True) for table in tables)
        return lambda pick: (nearby.index_select(0, pick), exponent.index_select(0, pick))

    # A window as wide as the grid: one row a pick, since a table of windows would grow with N squared.
    place = torch.arange(rows * columns, device=device)

    def everywhere(pick: Tensor) -> tuple[Tensor, Tensor]:
        row_step, column_step = (
            place // columns - pick[:, None] // columns,
            place % columns - pick[:, None] % columns,
        )
        squared = row_step.square() + column_step.square()
        return place.expand(squared.shape), _exponent(squared, squared <= radius * radius, sigma)

    return everywhere


def _windows(
    rows: int, columns: int, down: int, across: int, radius: float, sigma: float
) -> tuple[Tensor, Tensor]:
    """What :func:`_reach` gives for every position: [N, W], W the cells of a disc."""
    place = torch.arange(rows * columns)[:, None]
    row_step = torch.arange(-down, down + 1).repeat_interleave(2 * across + 1)
    column_step = torch.arange(-across, across + 1).repeat(2 * down + 1)
    squared = row_step.square() + column_step.square()
    disc = squared <= radius * radius
    row_step, column_step, squared = row_step[disc], column_step[disc], squared[disc]
    row, column = place // columns + row_step, place % columns + column_step
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    nearby = torch.where(inside, row * columns + column, rows * columns)
    return nearby, _exponent(squared.expand(nearby.shape), inside, sigma)


def _exponent(squared: Tensor, inside: Tensor, sigma: float) -> Tensor:
    return (wide(squared) / sigma / sigma * -0.5).masked_fill(~inside, -torch.inf).float()
