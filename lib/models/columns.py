"""Which columns of a sequence stay: index arithmetic on [B, S] tensors. Nothing here reads the device.

Every row loses the same number of columns, so the short length is known without looking at the data and
padding simply stays where it was. A kept sequence is described by `index` [B, S'], ascending.
"""

from __future__ import annotations

import torch
from torch import Tensor


def visual_columns(visual: Tensor, tokens: int) -> Tensor:
    """Columns of the first `tokens` True entries in each row of `visual` [B, S], as [B, tokens] int64."""
    return (~visual).to(torch.uint8).argsort(dim=1, stable=True)[:, :tokens]


def kept_columns(visual: Tensor, kept: Tensor, tokens: int) -> Tensor:
    """Columns that stay when only the visual tokens `kept` do.

    Parameters
    ----------
    visual : [B, S] bool, `tokens` True entries in each row.
    kept : [B, k] int64, indices among the visual tokens of the row.
    tokens : N.

    Returns
    -------
    [B, S - N + k] int64, ascending.
    """
    stays = (~visual).scatter(1, visual_columns(visual, tokens).gather(1, kept), True)
    length = visual.shape[1] - tokens + kept.shape[1]
    return (~stays).to(torch.uint8).argsort(dim=1, stable=True)[:, :length]


def take(states: Tensor, index: Tensor) -> Tensor:
    """Columns `index` [B, n] of `states` [B or 1, S, ...]; [B, n, ...]."""
    states = states.expand(index.shape[0], *states.shape[1:])
    shape = (*index.shape, *states.shape[2:])
    return states.gather(1, index.reshape(*index.shape, *[1] * (states.ndim - 2)).expand(shape))


def put_back(states: Tensor, index: Tensor, length: int) -> Tensor:
    """The inverse of `take`: [B, n, D] -> [B, length, D] with zeros where nothing was taken."""
    full = states.new_zeros(states.shape[0], length, states.shape[2])
    return full.scatter(1, index[..., None].expand_as(states), states)


def renumber(positions: Tensor, index: Tensor) -> Tensor:
    """Position ids [B or 1, S] of the columns `index` [B, n], each lowered by the number of columns dropped
    before it.

    A prompt that was contiguous before is contiguous afterwards, and dropping nothing changes nothing.
    """
    rank = torch.arange(index.shape[1], device=index.device)
    return take(positions, index) - (index - rank)


def last_real(mask: Tensor | None, length: int) -> int | Tensor:
    """Column of the last token that is not padding: an int without a mask, else [B] from the [B, S] mask."""
    if mask is None:
        return length - 1
    return ((mask != 0).long() * torch.arange(length, device=mask.device)).argmax(dim=1)
