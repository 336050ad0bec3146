"""What every selection shares: the budget, and picking with ties that go to the lower position."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real

import torch
from torch import Tensor

from lib.pruning.checks import check_integer, check_number, check_option, check_scores, check_shape

ROUNDINGS: dict[str, Callable[[float], int]] = {"floor": math.floor, "round": round, "ceil": math.ceil}
ORDERS = ("raster", "picked")
ENGINES = ("torch", "triton")


def check_keep(keep: int | float) -> int | float:
    """Return ``keep``; refuse what is neither a count of at least 1 nor a ratio in (0, 1]."""
    if isinstance(keep, bool) or not isinstance(keep, Real):
        raise ValueError(f"keep must be a count (int) or a ratio (float in (0, 1]), got {keep!r}")
    if isinstance(keep, Integral):
        return check_integer("keep", keep, least=1)
    return check_number("keep", keep, above=0.0, most=1.0)


def budget(keep: int | float, tokens: int, rounding: str = "floor") -> int:
    """Turn ``keep`` into a number of tokens: the only place where a ratio becomes a count.

    Parameters
    ----------
    keep
        An int is the count itself; a float in (0, 1] is the share of ``tokens``.
    tokens
        N.
    rounding
        How a share becomes whole. "floor" is what AdaptPrune's and FastV's released code does
        (0.1 of 576 is 57); "round" (halves to even) gives DeSAP's 33.3, 22.2 and 11.1 per cent of 576 as the
        192, 128 and 64 of its tables; "ceil" never keeps less than the share. The product is taken in
        floating point, as the released code takes it.

    Raises
    ------
    ValueError
        A count outside 1..N, a ratio outside (0, 1] or one that leaves no token, a bool.
    """
    check_integer("tokens", tokens, least=1)
    keep = check_keep(keep)
    check_option("rounding", rounding, ROUNDINGS)
    count = keep if isinstance(keep, int) else ROUNDINGS[rounding](keep * tokens)
    if not 1 <= count <= tokens:
        raise ValueError(f"keep={keep!r} asks for {count} of {tokens} tokens; it must be 1 to {tokens}")
    return count


def score_rows(name: str, scores: Tensor) -> Tensor:
    """Return [B, N] scores as float32; refuse other shapes, NaN and infinity."""
    check_shape(name, scores, B=None, N=None)
    check_scores(name, scores)
    return scores.float()


def highest(scores: Tensor, count: int) -> Tensor:
    """Positions of the ``count`` highest scores a row, highest first: [B, count]."""
    # torch.topk leaves the order of equal scores open; a stable sort does not.
    return scores.sort(dim=-1, descending=True, stable=True).indices[:, :count]


def others(taken: Tensor, tokens: int) -> Tensor:
    """Positions of 0..``tokens`` - 1 that are not among the distinct ``taken`` [B, M]: [B, tokens - M], ascending."""
    mark = torch.zeros(taken.shape[0], tokens, dtype=torch.uint8, device=taken.device).scatter(1, taken, 1)
    return mark.sort(dim=-1, stable=True).indices[:, : tokens - taken.shape[1]]


def first_highest(scores: Tensor, chosen: Tensor) -> Tensor:
    """Position of the highest score a row among those not ``chosen``: [B]."""
    # torch.argmax gives the first of equal maxima, hence the lower position.
    return scores.masked_fill(chosen, -torch.inf).argmax(-1)


def in_order(picks: list[Tensor], order: str) -> Tensor:
    """Stack one pick a step into [B, k], as picked or ascending."""
    picked = torch.stack(picks, dim=1)
    return picked if order == "picked" else picked.sort(dim=-1).values
