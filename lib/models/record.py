"""What a pruned run remembers: for the caller, for the length of one forward, and for the life of a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib.models.choosing import Decision
from lib.models.columns import take
from lib.models.pictures import Picture
from lib.pruning.methods import Method

RECORD = "_visual_token_record"  # name of the attribute on a cache that holds its `Record`


@dataclass
class Trace:
    """What the latest prefill did.

    Attributes
    ----------
    method, grid, layers : what runs, (rows, columns) of the visual tokens, number of decoder layers. `grid` is None where
        it depends on the image.
    saliency : "cls" where saliency is the [CLS] token's attention, "received" where a tower without one gives the mean
        attention that a patch receives (ours, no paper's), "" where the method does not ask.
    grids : per sample, (rows, columns) of each part in which the encoder saw the image.
    kept : per sample, ascending indices among its visual tokens.
    scores : each cue's map [B, N] float32; NaN where a sample has fewer tokens, and at newlines.
    lengths : sequence length in each decoder layer at prefill, padding included.
    ran : whether the model was called inside the context, as far as its hooks can tell.
    pruned : how many forwards with an image were pruned.
    """

    method: Method
    grid: tuple[int, int] | None
    layers: int
    saliency: str = ""
    grids: list[tuple[tuple[int, int], ...]] = field(default_factory=list)
    kept: list[Tensor] = field(default_factory=list)
    scores: dict[str, Tensor] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    ran: bool = False
    pruned: int = 0


@dataclass(frozen=True)
class Cut:
    """Where the sequence became shorter.

    `layer` is the first one that holds the short sequence, `index` [B, S'] the columns of the whole prompt that it consists
    of, `stays` [B, S] the columns that were kept, `mask` [B, S'] the padding mask of the short sequence or None (fillers of
    rows that lost more than others are padding), `fewer` [B, 1] by how much ids after the prompt are lower where
    positions count anew.
    """

    layer: int
    total: int
    index: Tensor
    stays: Tensor
    mask: Tensor | None
    fewer: Tensor | int = 0

    @property
    def dropped(self) -> int:
        """Columns that the sequence is shorter by."""
        return self.total - self.index.shape[1]

    @property
    def alive(self) -> Tensor:
        """[B, S'] bool, False for fillers."""
        return self.stays.gather(1, self.index)

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

    `visual` [B, S] tells which columns are visual and `columns` [B, N] where they are (beyond the end of a row's own, any).
    `prefill` tells whether the cache is empty; None before the language model begins. `labels` are those of the forward,
    `asked` [B, S] the columns up to the prompt's end (None: all) and `known` the choices that an earlier forward of the same
    generation has made. `sound` tells of each condition on the input whether it holds; it waits for the next read of the
    device.
    `placed` tells whether the caller gave position ids, `positions` are those with several axes. `decisions` are the choices and
    `cuts` what they took away so far, `places` the position ids after the latest of several; `keys` [B, S', G, d] are those of
    the layer before the next one; `short_masks` the padding masks of a forward on a filled cache, by the layer of the cut.
    """

    input_ids: Tensor
    mask: Tensor | None = None
    prefill: bool | None = None
    repeat: int = 1
    visual: Tensor | None = None
    pictures: Sequence[Picture] = ()
    columns: Tensor | None = None
    words: Tensor | None = None
    labels: Tensor | None = None
    asked: Tensor | None = None
    sound: dict[str, Tensor] = field(default_factory=dict)
    known: Sequence[Decision] = ()
    placed: bool = True
    positions: Tensor | None = None
    attention: Tensor | None = None
    next_attention: Tensor | None = None
    prompt_attention: Tensor | None = None
    keys: Tensor | None = None
    places: Tensor | None = None
    decisions: list[Decision] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    record: Record | None = None
    short_masks: dict[int, Tensor | None] = field(default_factory=dict)
    layer_kwargs: dict = field(default_factory=dict)

    @property
    def state(self) -> tuple[Tensor, Tensor | None]:
        """Which columns are visual, [B, S'], and which hold the prompt without padding (None: all), as the sequence is now."""
        visual, mask, asked = self.visual, self.mask, self.asked
        if self.cuts:
            index, mask = self.cuts[-1].index, self.cuts[-1].mask
            visual, asked = take(visual, index), asked if asked is None else take(asked, index)
        if asked is None:
            return visual, mask
        return visual, asked if mask is None else asked & (mask != 0)
