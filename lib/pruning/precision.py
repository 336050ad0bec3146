"""Products whose value does not depend on where a token stands or on who shares the batch.

A matrix product adds in an order that depends on tile, memory alignment and batch size, so in float32 two
equal tokens can end up a rounding apart and a tie would be decided by noise. Adding in float64 and rounding
the result to float32 makes such differences vanish.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

BLOCK = 64  # rows of a product taken at once: large enough for speed, small next to the features
FINE = 2.0**-36  # far above the rounding of a float64 sum of products, far below float32


def exact(device: torch.device) -> AbstractContextManager:
    """A context in which products keep the type of their factors: autocast would round them to half precision."""
    kind = device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right`` in the type of its factors, also under autocast."""
    with exact(left.device):
        return left @ right


def wide(tensor: Tensor) -> Tensor:
    """``tensor`` in float64, or in float32 on the one backend that has no float64."""
    return tensor.to(torch.float32 if tensor.device.type == "mps" else torch.float64)


def unit(tensor: Tensor) -> Tensor:
    """Rows scaled to length 1 in :func:`wide` precision; a row of zeros stays zero."""
    rows = wide(tensor)
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_min(1e-12)
    if rows is tensor or rows.requires_grad:
        return rows / length
    return rows.div_(length)  # a fresh copy may be scaled in place: half the memory of the largest step


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """Cosine of every row of ``left`` [B, M, D] with every row of ``right`` [B, N, D]: [B, M, N] float32."""
    return (unit(left) @ unit(right).mT).float()


def cosine_table(direction: Tensor, *, fine: bool = False) -> Tensor:
    """Cosine of every pair of :func:`unit` rows: [B, N, D] -> [B, N, N], symmetric.

    float32; where ``fine``, :func:`wide` and rounded to whole multiples of `FINE`: for rules of many steps that each hang on
    all before, so that inputs in float32 get the answer of exact arithmetic and equal tokens still tie.
    """
    batch, tokens, _ = direction.shape
    table = torch.empty(
        batch, tokens, tokens, device=direction.device, dtype=direction.dtype if fine else torch.float32
    )
    for start, block in _upper_blocks(direction):
        stop = start + block.shape[1]
        block = block.div_(FINE).round_().mul_(FINE) if fine else block.float()
        table[:, start:stop, start:] = block
        table[:, start:, start:stop] = block.mT
    return table


def closest_cosine(direction: Tensor) -> Tensor:
    """Cosine of every :func:`unit` row with its closest other: [B, N, D] -> [B, N] float32, -inf if N is 1.

    The same numbers as the rows of :func:`cosine_table` give, without the table.
    """
    closest = torch.full(direction.shape[:2], -torch.inf, device=direction.device)
    for start, wide_block in _upper_blocks(direction):
        block = wide_block.float()
        block.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        here, onward = closest[:, start : start + block.shape[1]], closest[:, start:]
        here.copy_(here.maximum(block.amax(-1)))
        onward.copy_(onward.maximum(block.amax(-2)))
    return closest


def _upper_blocks(direction: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The products of each block of rows with itself and all later rows: half the work of all pairs."""
    for start in range(0, direction.shape[1], BLOCK):
        yield start, direction[:, start : start + BLOCK] @ direction[:, start:].mT
