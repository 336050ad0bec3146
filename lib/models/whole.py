"""Handing back the whole prompt: states, attention and the prediction of what comes next, all by its columns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lib.models.caches import Cut

IGNORED = -100  # label of a column that no loss counts


def put_back(states: Tensor, cut: Cut) -> Tensor:
    """States [B, S', W] of the columns that a cut left, as [B, S, W]; zero where a column was dropped."""
    states = states.masked_fill(~cut.alive[..., None], 0.0)
    full = states.new_zeros(states.shape[0], cut.total, states.shape[2])
    return full.scatter(1, cut.index[..., None].expand_as(states), states)


def put_back_weights(weights: Tensor, cut: Cut, queries: bool) -> Tensor:
    """Attention [B, H, Q, S' + n] of a layer behind a cut as [B, H, Q, S + n]: n columns have come since the prompt.

    `queries` tells whether the Q queries are the columns of the prompt, and to be put back likewise; zero elsewhere.
    """
    batch, heads, count, seen = weights.shape
    new = torch.arange(seen - cut.index.shape[1], device=weights.device)
    columns = torch.cat([cut.index, (cut.total + new).expand(batch, -1)], 1)[:, None, None]
    alive = torch.cat([cut.alive, torch.ones_like(new, dtype=torch.bool).expand(batch, -1)], 1)[:, None, None]
    full = weights.new_zeros(batch, heads, count, cut.total + len(new))
    full = full.scatter(3, columns.expand_as(weights), weights.masked_fill(~alive, 0.0))
    if not queries:
        return full
    rows = cut.index[:, None, :, None].expand_as(full)
    full = full.masked_fill(~cut.alive[:, None, :, None], 0.0)
    return full.new_zeros(batch, heads, cut.total, full.shape[3]).scatter(2, rows, full)


def behind(cuts: Sequence[Cut], layer: int) -> Cut | None:
    """The cut whose short sequence decoder layer `layer` runs on; None before the first."""
    return next((cut for cut in reversed(cuts) if cut.layer <= layer), None)


def predicting(states: Tensor, cut: Cut, last: Tensor) -> Tensor:
    """Last states [B, S', W] by the columns of the prompt, [B, S, W], with the next word's prediction where it is looked for.

    That is the prompt's last column, `last` [B]. Where a cut dropped it, the state of the last column kept before it stands
    in: that is what comes before the next word in the short sequence.
    """
    full = put_back(states, cut)
    there = cut.index <= last[:, None]
    if cut.mask is not None:
        there = there & (cut.mask != 0)
    place = (there * torch.arange(there.shape[1], device=last.device)).argmax(1)
    rows = torch.arange(len(last), device=last.device)
    found = torch.where(there.any(1)[:, None], states[rows, place], full[rows, last])
    return full.index_put_((rows, last), found)


def predicted(labels: Tensor, stays: Tensor, real: Tensor, last: Tensor) -> Tensor:
    """Whether something is left to predict each label, one bool; `last` [B] as in `predicting`.

    `labels`, `stays` and `real` (no padding) are [B, S].
    """
    place = torch.arange(labels.shape[1], device=labels.device)
    ends = place == last[:, None]
    before = (stays & real & (place <= last[:, None])).any(1, keepdim=True)
    return ((labels[:, 1:] == IGNORED) | (stays | (ends & before))[:, :-1]).all()


def hand_back(output, cuts: Sequence[Cut], last: Tensor | None) -> None:
    """Put a decoder's output in terms of the whole prompt, in place.

    `last` [B] is the last column of the prompt where the forward was that of the prompt, None after it. Hidden states and
    logits are zero where a column was dropped, but for the last state at the prompt's end (see `predicting`); attention is
    zero to and from dropped columns.
    """
    if last is not None:
        short = output.last_hidden_state
        output.last_hidden_state = predicting(short, cuts[-1], last)
        if output.hidden_states is not None:
            output.hidden_states = tuple(
                output.last_hidden_state
                if state is short
                else _state(state, behind(cuts, max(0, number - 1)))
                for number, state in enumerate(output.hidden_states)
            )
    if output.attentions:
        output.attentions = tuple(
            _weights(weights, behind(cuts, layer), last is not None)
            for layer, weights in enumerate(output.attentions)
        )


def _state(state: Tensor | None, cut: Cut | None) -> Tensor | None:
    return state if state is None or cut is None else put_back(state, cut)


def _weights(weights: Tensor | None, cut: Cut | None, queries: bool) -> Tensor | None:
    return weights if weights is None or cut is None else put_back_weights(weights, cut, queries)
