"""Which columns of a sequence stay: index arithmetic on [B, S] tensors. Nothing here reads the device.

How many columns each row loses is known from the shapes of a choice, so the short length is known without looking at
the data, and padding simply stays where it was. A kept sequence is described by `index` [B, S'], ascending; where
rows lose different numbers, short rows hold some dropped columns as masked fillers.
"""

from __future__ import annotations

import torch
from torch import Tensor


def visual_columns(visual: Tensor, tokens: int) -> Tensor:
    """Columns of the first `tokens` True entries in each row of `visual` [B, S], as [B, tokens] int64."""
    return (~visual).to(torch.uint8).argsort(dim=1, stable=True)[:, :tokens]


def staying(visual: Tensor, kept: Tensor) -> Tensor:
    """Columns [B, S] bool that are not dropped; `kept` [B, N] bool tells of each visual token of `visual` [B, S]."""
    place = (visual.long().cumsum(1) - 1).clamp(0, kept.shape[1] - 1)
    return ~visual | kept.gather(1, place)


def kept_columns(stays: Tensor, length: int, present: Tensor | None = None) -> Tensor:
    """The `length` columns that make the short sequence, [B, length] int64, ascending.

    A row with fewer columns that stay is filled up with some that do not, which have to be masked.

    Parameters
    ----------
    stays : [B, S] bool.
    length : columns that stay in the row with most of them.
    present : [B, S] bool, columns that an earlier cut has left; fillers come from them. None: all.
    """
    order = (~stays).to(torch.uint8)
    if present is not None:
        order = order + (~present).to(torch.uint8)
    return order.argsort(dim=1, stable=True)[:, :length].sort(dim=1).values


def take(states: Tensor, index: Tensor) -> Tensor:
    """Columns `index` [B, n] of `states` [B or 1, S, ...]; [B, n, ...]."""
    states = states.expand(index.shape[0], *states.shape[1:])
    shape = (*index.shape, *states.shape[2:])
    return states.gather(1, index.reshape(*index.shape, *[1] * (states.ndim - 2)).expand(shape))


def take_positions(positions: Tensor, index: Tensor) -> Tensor:
    """Position ids [..., B or 1, S] of the columns `index` [B, n]; [..., B, n]."""
    rows = positions.expand(*positions.shape[:-2], index.shape[0], -1)
    return rows.gather(-1, index.expand(*rows.shape[:-1], -1))


def renumber(positions: Tensor, index: Tensor, stays: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Position ids of the columns that stay, without gaps where columns were dropped.

    Each id is lowered by the number of lower ids that stood in the prompt and that no column has any more. With one id
    a column (text, LLaVA) that is the number of columns dropped before it. With three (M-RoPE: time, row, column) an id
    is gone when no axis of any column that stays has it: kept patches stay in their order on every axis, empty rows
    and columns of the image close up, and the text moves up behind them. Dropping nothing changes nothing.

    Parameters
    ----------
    positions : [B or 1, S], or [axes, B or 1, S]; of four axes the first counts the text, as transformers has it.
    index : [B, n] columns that stay.
    stays, real : [B, S] bool; real ones are not padding.

    Returns
    -------
    Ids [..., B, n], and by how much ids after the prompt are lower, [B, 1].
    """
    if positions.ndim == 3 and len(positions) == 4:
        text, _ = renumber(positions[0], index, stays, real)
        seen, fewer = renumber(positions[1:], index, stays, real)
        return torch.cat([text[None], seen]), fewer
    axes = positions.reshape(-1, *positions.shape[-2:]).expand(-1, index.shape[0], -1).movedim(0, 1)
    never = torch.iinfo(axes.dtype).max
    before, after = (
        axes.masked_fill(~there[:, None], never).flatten(1).sort(dim=1).values.contiguous()
        for there in (real, real & stays)
    )
    left = after.gather(1, torch.searchsorted(after, before).clamp(max=after.shape[1] - 1)) == before
    first = before != before.roll(1, 1)
    first[:, 0] = True
    gone = (first & ~left).long()
    lower = gone.cumsum(1) - gone  # ids gone below each entry
    short = take_positions(positions, index)
    flat = short.reshape(-1, *short.shape[-2:]).movedim(0, 1).flatten(1).contiguous()
    fewer = lower.gather(1, torch.searchsorted(before, flat).clamp(max=before.shape[1] - 1))
    fewer = fewer.unflatten(1, (-1, index.shape[1])).movedim(1, 0).reshape(short.shape)
    return short - fewer, gone.sum(1, keepdim=True)


def last_real(mask: Tensor | None, length: int) -> int | Tensor:
    """Column of the last token that is not padding: an int without a mask, else [B] from the [B, S] mask."""
    if mask is None:
        return length - 1
    return ((mask != 0).long() * torch.arange(length, device=mask.device)).argmax(dim=1)
