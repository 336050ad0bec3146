"""Refusals shared by the whole package: one ``ValueError`` that names the argument and the value."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real

import torch
from torch import Tensor


def check_scores(name: str, scores: Tensor) -> None:
    """Refuse NaN and infinite values of a CPU tensor.

    Tensors on an accelerator are passed over: looking at their values would stop the host until the device
    has caught up. The executor looks at them once, at the read that it makes anyway.
    """
    if scores.is_complex():
        raise ValueError(f"{name} must be real, got {scores.dtype}")
    if scores.device.type != "cpu" or not scores.is_floating_point():
        return
    # One NaN or infinity makes the sum one too; the sum takes a small part of the time of the count.
    if math.isfinite(scores.sum().item()):
        return
    bad = (~torch.isfinite(scores)).sum().item()
    if bad:
        raise ValueError(f"{name} must be finite: {bad} of {scores.numel()} values are NaN or infinite")


def check_mask(name: str, mask: Tensor) -> Tensor:
    """Return ``mask`` as bool; refuse what is neither bool nor whole numbers, on the CPU also other numbers than 0 and 1."""
    if mask.is_floating_point() or mask.is_complex():
        raise ValueError(f"{name} must be a mask of bools or of 0 and 1, got {mask.dtype}")
    if mask.dtype != torch.bool and mask.device.type == "cpu" and not ((mask == 0) | (mask == 1)).all():
        raise ValueError(f"{name} must hold 0 and 1 alone, got {mask.unique().tolist()[:5]}")
    return mask.bool()


def check_shape(name: str, tensor: Tensor, **sizes: int | None) -> None:
    """Refuse a tensor whose shape is not the named ``sizes``; ``None`` leaves that size free, but never 0.

    Over nothing a mean is NaN and a maximum does not exist.
    """
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} must be a tensor, got {tensor!r}")
    fits = tensor.dim() == len(sizes) and all(
        wanted is None or wanted == given for wanted, given in zip(sizes.values(), tensor.shape, strict=True)
    )
    if not fits:
        form = ", ".join(label if size is None else f"{label}={size}" for label, size in sizes.items())
        raise ValueError(f"{name} must have shape [{form}], got {list(tensor.shape)}")
    empty = [label for label, given in zip(sizes, tensor.shape, strict=True) if given == 0]
    if empty:
        raise ValueError(f"{name} must not be empty along {', '.join(empty)}, got shape {list(tensor.shape)}")


def check_grid(grid: tuple[int, int], tokens: int | None = None) -> tuple[int, int]:
    """Return ``grid`` as two ints; refuse anything but (rows, columns) with rows * columns == ``tokens``."""
    try:
        rows, columns = grid
    except (TypeError, ValueError):
        raise ValueError(f"grid must be (rows, columns), got {grid!r}") from None
    for side in (rows, columns):
        if isinstance(side, bool) or not isinstance(side, Integral) or side < 1:
            raise ValueError(f"grid must be two positive ints, got {grid!r}")
    if tokens is not None and rows * columns != tokens:
        raise ValueError(f"grid {grid!r} has {rows * columns} positions but there are {tokens} tokens")
    return int(rows), int(columns)


def check_number(
    name: str,
    value: float,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    finite: bool = True,
) -> float:
    """Return ``value`` as float; refuse bool, NaN, infinity (where ``finite``) and what leaves the range."""
    if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
        raise ValueError(f"{name} must be a number, got {value!r}")
    if finite and math.isinf(value):
        raise ValueError(f"{name} must be finite, got {value!r}")
    if above is not None and not value > above:
        raise ValueError(f"{name} must be above {above}, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}, got {value!r}")
    return float(value)


def check_integer(name: str, value: int, *, least: int | None = None) -> int:
    """Return ``value`` as int; refuse bool, what is not a whole number, and less than ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name} must be an int, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    return int(value)


def check_option(name: str, value: str, options: Collection[str]) -> str:
    """Return ``value``; refuse what is not among ``options``."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}; got {value!r}")
    return value


def check_flag(name: str, value: bool) -> bool:
    """Return ``value``; refuse what is not a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return value
