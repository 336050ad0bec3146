"""Products whose value does not depend on where a token stands or on who shares the batch.

A matrix product adds in an order that depends on tile, memory alignment and batch size, so in float32 two
equal tokens can end up a rounding apart and a tie would be decided by noise. Adding in float64 and rounding
the result to float32 makes such differences vanish.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def wide(tensor: Tensor) -> Tensor:
    """``tensor`` in float64, or in float32 on the one backend that has no float64."""
    return tensor.to(torch.float32 if tensor.device.type == "mps" else torch.float64)


def unit(tensor: Tensor) -> Tensor:
    """Rows scaled to length 1 in :func:`wide` precision; a row of zeros stays zero."""
    return normalize(wide(tensor), dim=-1)


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """Cosine of every row of ``left`` [B, M, D] with every row of ``right`` [B, N, D]: [B, M, N] float32."""
    return (unit(left) @ unit(right).mT).float()
