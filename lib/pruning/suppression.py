"""Adaptive non-maximum suppression: pick the highest score, fade what is near and alike, and again."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from lib.pruning.checks import check_grid, check_number, check_option, check_scores, check_shape
from lib.pruning.picking import ENGINES, ORDERS, budget, first_highest, in_order, score_rows
from lib.pruning.precision import wide


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
