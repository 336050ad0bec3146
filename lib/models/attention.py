"""Attention weights of some query rows, from one module, whatever kernel the model runs.

Fast kernels never form the weights. Asking for `output_attentions=True` returns nothing under sdpa, and
switching the whole model to eager changes its cost and its bits. A probe sits in the attention interface of
a single module instead: it sees the queries and keys that the kernel sees (after rotary embedding and any
norm) and then calls the kernel that was there before. Nothing of the module changes while it runs, so that
several threads may run it at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import PreTrainedConfig

from lib.models.borrowed import kernel_name, kernel_of, register_kernel, with_kernel
from lib.models.guards import unwrapped
from lib.models.offload import at_home
from lib.pruning.precision import exact

NAME = "visual_token_probe"
_SLOT = "_visual_token_probe"


@dataclass(frozen=True)
class Sight:
    """What the probed module is about to attend with.

    Attributes
    ----------
    query : [B, H, Q, d], after rotary embedding.
    key : [B, H or fewer, T, d]; fewer heads than queries means grouped keys.
    mask : None, [B, T] of ones and zeros, bool [B, 1, Q, T] (True = visible), an additive float of that
        shape, or flex attention's own kind.
    scaling : factor of the dot products.
    causal : whether a query is blind to later keys even where the mask does not say so.
    """

    query: Tensor
    key: Tensor
    mask: Tensor | BlockMask | None
    scaling: float
    causal: bool

    def row(self, rows: int | Tensor) -> Tensor:
        """Weights of one query a sample, [B, H, T]; `rows` is its index, one for all or [B]."""
        rows = torch.as_tensor(rows, device=self.query.device).expand(self.query.shape[0])
        return self.rows(rows[:, None]).squeeze(2)

    def rows(self, rows: Tensor) -> Tensor:
        """`attention_rows` of what was seen."""
        return attention_rows(self.query, self.key, self.mask, self.scaling, rows, causal=self.causal)

    def received(self, chunk: int = 256) -> Tensor:
        """Attention that each key gets, averaged over all queries, [B, H, T]; `chunk` queries are held at a time."""
        batch, _, queries, _ = self.query.shape
        total = torch.zeros((), device=self.query.device)
        for part in torch.arange(queries, device=self.query.device).split(chunk):
            total = total + self.rows(part.expand(batch, -1)).sum(2)
        return total / queries


class _Seen(Exception):
    """Raised by `glimpse` out of the module whose work ends there."""


@dataclass(frozen=True)
class _Probe:
    config: PreTrainedConfig
    kernel: Callable
    callback: Callable[[Sight], None]


def _forward(module, query, key, value, attention_mask, **kwargs):
    probe = vars(module.config).get(_SLOT)
    if probe is None:  # the probe was taken off since the module asked for its kernel, by another thread
        return kernel_of(module)(module, query, key, value, attention_mask, **kwargs)
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", False) if causal is None else causal
    scaling = kwargs.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    probe.callback(Sight(query, key, attention_mask, scaling, bool(causal)))
    plain = copy.copy(module)
    plain.config = probe.config  # some kernels read the implementation's name from here
    return probe.kernel(plain, query, key, value, attention_mask, **kwargs)


register_kernel(NAME, _forward)


@contextmanager
def probe(module: nn.Module, callback: Callable[[Sight], None]) -> Iterator[None]:
    """Call `callback(sight)` whenever the attention module `module` runs; its output does not change.

    Only this module's `config` is replaced, by a shallow copy, so masks and all other layers stay as they
    are. The very same config object is back on exit.

    Raises
    ------
    ValueError
        If the module is already being probed, or does not attend through transformers' attention interface.
    """
    module = unwrapped(module)
    kernel, config = kernel_of(module), module.config
    if kernel_name(config) == NAME:
        raise ValueError(f"module is a {type(module).__name__} that another probe is watching")
    with _watched(module, kernel, callback):
        yield


@contextmanager
def _watched(module: nn.Module, kernel: Callable, callback: Callable[[Sight], None]) -> Iterator[None]:
    config = module.config
    probed = with_kernel(config, NAME)
    vars(probed)[_SLOT] = _Probe(config, kernel, callback)
    module.config = probed
    try:
        yield
    finally:
        module.config = config


@torch.no_grad()
def glimpse(module: nn.Module, hidden: Tensor, **kwargs) -> Sight:
    """What the attention module `module` would attend with, given its input [B, S, D], without letting it attend.

    The module itself projects, norms and rotates, so that every family's own way is taken; it is left at the kernel's door,
    before anything is attended. No hook of it runs, and no cache is touched as none is given. `kwargs` are what its layer
    would hand over besides: the mask, the rotary embeddings. A probe that watches the module sees nothing of this.
    """
    seen: list[Sight] = []

    def leave(*args, **others):
        raise _Seen

    twin = copy.copy(module)  # other threads may be running the module itself
    args, kwargs = at_home(twin, (hidden,), kwargs)
    with _watched(twin, leave, seen.append), suppress(_Seen):
        twin.forward(*args, **kwargs)
    return seen[0]


def attention_rows(
    query: Tensor,
    key: Tensor,
    mask: Tensor | BlockMask | None,
    scaling: float,
    rows: Tensor,
    *,
    causal: bool = False,
) -> Tensor:
    """Attention weights of some queries per sample.

    Parameters
    ----------
    query : [B, H, Q, d].
    key : [B, G, T, d], G a divisor of H; query head h reads key head h // (H / G).
    mask : see `Sight.mask`.
    scaling : factor of the dot products.
    rows : [B, R] int64, indices of the queries.
    causal : hide keys after each query where `mask` is None or two-dimensional (other masks hold it already).

    Returns
    -------
    [B, H, R, T] float32, each row summing to 1.
    """
    batch, heads, queries, width = query.shape
    groups, length, count = key.shape[1], key.shape[2], rows.shape[1]
    chosen = query.gather(2, rows[:, None, :, None].expand(-1, heads, -1, width))
    chosen = chosen.reshape(batch, groups, (heads // groups) * count, width).float()
    with exact(query.device):
        logits = torch.einsum("bghd,bgtd->bght", chosen, key.float())
    logits = logits.reshape(batch, heads, count, length) * scaling
    hidden = torch.zeros((batch, 1, count, length), dtype=torch.bool, device=query.device)
    if isinstance(mask, BlockMask):
        places = (torch.arange(size, device=query.device) for size in (batch, heads, length))
        sample, head, column = (
            line.view(shape)
            for line, shape in zip(places, ((-1, 1, 1, 1), (1, -1, 1, 1), (-1,)), strict=True)
        )
        visible = mask.mask_mod(sample, head, rows[:, None, :, None], column)
        return logits.masked_fill(~visible, torch.finfo(torch.float32).min).softmax(-1)
    if causal and (mask is None or mask.ndim == 2):
        last = rows + (length - queries)  # queries are the newest of the `length` positions
        hidden = hidden | (torch.arange(length, device=query.device) > last[..., None])[:, None]
    if mask is not None and mask.ndim == 2:
        hidden = hidden | (mask[:, None, None, -length:] == 0)
    elif mask is not None:
        line = mask.expand(batch, -1, -1, -1)
        line = line.gather(2, rows[:, None, :, None].expand(-1, line.shape[1], -1, line.shape[3]))[
            ..., :length
        ]
        if mask.dtype == torch.bool:
            hidden = hidden | ~line
        else:
            logits = logits + line.float()
    return logits.masked_fill(hidden, torch.finfo(torch.float32).min).softmax(-1)
