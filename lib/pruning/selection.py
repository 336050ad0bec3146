"""The selections: which k of N visual tokens stay.

Every selection works on a batch, gives exactly k distinct positions a row, breaks ties by the lower position,
never reads a value back from the device and never makes a shape that depends on data: all of them run on
``meta`` tensors.

Shapes: B batch, N visual tokens, D feature width, k kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lib.pruning.checks import check_grid, check_integer, check_number, check_shape
from lib.pruning.greedy import dpp_map, max_min
from lib.pruning.picking import ENGINES, ORDERS, ROUNDINGS, budget, highest, score_rows
from lib.pruning.suppression import adaptive_nms

__all__ = [
    "ENGINES",
    "ORDERS",
    "ROUNDINGS",
    "adaptive_nms",
    "budget",
    "dpp_map",
    "lattice_places",
    "max_min",
    "random_choice",
    "split_top_k",
    "spread_priority",
    "top_k",
    "uniform_grid",
]


@torch.no_grad()
def top_k(scores: Tensor, keep: int | float) -> Tensor:
    """The ``keep`` highest scores: [B, N] -> [B, k] int64, ascending."""
    scores = score_rows("scores", scores)
    return highest(scores, budget(keep, scores.shape[1])).sort(dim=-1).values


@torch.no_grad()
def split_top_k(first: Tensor, second: Tensor, keep: int | float, share: float = 0.5) -> Tensor:
    """Two scores share one budget, one after the other and without overlap.

    Parameters
    ----------
    first, second
        [B, N] scores.
    keep
        Count or ratio.
    share
        ``round(share * k)`` tokens (halves to even) go to the highest ``first``; the rest to the highest
        ``second`` among the tokens that are left.

    Returns
    -------
    Tensor
        [B, k] int64, ascending.

    Source: DeSAP section 4.3, Eq. 5.
    """
    first = score_rows("first", first)
    check_shape("second", second, B=first.shape[0], N=first.shape[1])
    second = score_rows("second", second)
    check_number("share", share, least=0.0, most=1.0)
    count = budget(keep, first.shape[1])
    from_first = round(share * count)
    chosen = highest(first, from_first)
    taken = torch.zeros_like(second, dtype=torch.bool).scatter(1, chosen, True)
    rest = highest(second.masked_fill(taken, -torch.inf), count - from_first)
    return torch.cat([chosen, rest], dim=1).sort(dim=-1).values


def random_choice(
    seeds: Sequence[int], tokens: int, keep: int | float, device: torch.device | str | None = None
) -> Tensor:
    """A uniform random subset a row, drawn from that row's own seed: [B, k] int64, ascending.

    A smaller ``keep`` with the same seed gives a subset of the larger one. The generator uses the seed's
    lower 32 bits.
    """
    count = budget(keep, tokens)
    if len(seeds) == 0:
        raise ValueError(f"seeds must hold one int a row, got {seeds!r}")
    drawn = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(check_integer("seeds", seed) % 2**32)
        drawn.append(torch.randperm(tokens, generator=generator)[:count].sort().values)
    return torch.stack(drawn).to(device, non_blocking=True)


def uniform_grid(grid: tuple[int, int], keep: int | float) -> Tensor:
    """Exactly k distinct positions spread evenly over the grid: [k] int64, ascending.

    About ``sqrt(k * rows / columns)`` rows are used, evenly spaced; each holds its share of k, evenly spaced
    too.
    """
    rows, columns = check_grid(grid)
    count = budget(keep, rows * columns)
    lines = round(math.sqrt(count * rows / columns))
    lines = min(max(lines, math.ceil(count / columns)), rows, count)
    positions = []
    for line in range(lines):
        here = (line + 1) * count // lines - line * count // lines
        row = (2 * line + 1) * rows // (2 * lines)
        positions += [row * columns + (2 * place + 1) * columns // (2 * here) for place in range(here)]
    return torch.tensor(positions)


def lattice_places(grid: tuple[int, int], lattice: tuple[int, int]) -> list[int]:
    """Positions in a grid on which the cells of a coarser lattice of (rows, columns) have their middle, ascending."""
    (rows, columns), (lines, across) = grid, lattice
    down = [(2 * line + 1) * rows // (2 * lines) for line in range(lines)]
    right = [(2 * place + 1) * columns // (2 * across) for place in range(across)]
    return [row * columns + column for row in down for column in right]


def spread_priority(grid: tuple[int, int], device: torch.device | str | None = None) -> Tensor:
    """A rank in [0, 1) a position; the highest ranks of any region lie evenly spread in it: [N] float32.

    The fractional part of a walk with two irrational steps, one a row and one a column (the reciprocal powers
    of the plastic number, whose multiples fill the plane evenly).
    """
    rows, columns = check_grid(grid)
    plastic = 1.32471795724474602596
    down = torch.arange(rows, dtype=torch.float64)[:, None] / plastic
    across = torch.arange(columns, dtype=torch.float64) / plastic**2
    return ((down + across) % 1.0).flatten().float().to(device, non_blocking=True)
