"""What a pruned run remembers: for the caller, for the length of one forward, and for the life of a cache."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib.models.columns import take
from lib.pruning.methods import Choice, Method

RECORD = "_visual_token_record"  # name of the attribute on a cache that holds its `Record`


@dataclass
class Trace:
    """What the latest prefill did.

    Attributes
    ----------
    method, grid, layers : what runs, (rows, columns) of the visual tokens, number of decoder layers.
    kept : per sample, ascending indices among its visual tokens.
    scores : each cue's map [B, N] float32.
    lengths : sequence length in each decoder layer at prefill, padding included.
    """

    method: Method
    grid: tuple[int, int]
    layers: int
    kept: list[Tensor] = field(default_factory=list)
    scores: dict[str, Tensor] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Encoded:
    """The latest images: their cues, the choice if it falls at layer 0, and the projector's output."""

    cues: dict[str, object]
    choice: Choice | None
    projected: Tensor | None = None


@dataclass(frozen=True)
class Cut:
    """Where the sequence became shorter.

    `layer` is the first one that holds the short sequence, `index` [B, S'] the columns of the whole prompt that stay, `mask`
    [B, S'] their padding mask or None, `kept` [B, k] the visual tokens that stay.
    """

    layer: int
    total: int
    index: Tensor
    mask: Tensor | None
    kept: Tensor

    @property
    def dropped(self) -> int:
        return self.total - self.index.shape[1]

    def extend(self, mask: Tensor | None, whole: int) -> Tensor | None:
        """Padding mask of the short sequence; `mask` [B, whole] is that of the prompt and all after it."""
        if mask is None and self.mask is None:
            return None
        short = self.mask if self.mask is not None else torch.ones_like(self.index)
        tail = short.new_ones(short.shape[0], whole - self.total) if mask is None else mask[:, self.total :]
        tail = tail.to(short.dtype)
        return torch.cat([short, tail], dim=1)


@dataclass(frozen=True)
class Record:
    """What a pruned cache must remember to go on: how positions count, and its cuts in the order of the layers."""

    positions: str
    cuts: tuple[Cut, ...]

    @property
    def schedule(self) -> tuple[int, ...]:
        return tuple(cut.layer for cut in self.cuts)

    @property
    def before(self) -> int:
        """Columns that no layer holds, since they were dropped before the language model."""
        return self.cuts[0].dropped if self.cuts[0].layer == 0 else 0


@dataclass
class Call:
    """One forward through the model, from its first hook to its last.

    `cuts` are those made so far; `short_masks` the padding masks of a forward on a filled cache, by the layer of the cut.
    """

    input_ids: Tensor
    mask: Tensor | None = None
    prefill: bool = False
    repeat: int = 1
    visual: Tensor | None = None
    words: Tensor | None = None
    genuine: Tensor | None = None
    attention: Tensor | None = None
    prompt_attention: Tensor | None = None
    cuts: list[Cut] = field(default_factory=list)
    record: Record | None = None
    short_masks: dict[int, Tensor | None] = field(default_factory=dict)
    layer_kwargs: dict = field(default_factory=dict)

    @property
    def state(self) -> tuple[Tensor, Tensor | None]:
        """Which columns are visual, [B, S'], and the padding mask, both of the sequence as it is now."""
        if not self.cuts:
            return self.visual, self.mask
        return take(self.visual, self.cuts[-1].index), self.cuts[-1].mask
