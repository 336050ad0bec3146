"""What a pruned run remembers for the caller, and for the length of one forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib.models.caches import Cut, Record
from lib.models.choosing import Decision
from lib.models.columns import last_real, take
from lib.models.tiles import Encoded, Picture
from lib.pruning.methods import Method


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


@dataclass
class Call:
    """One forward through the model, from its first hook to its last.

    `encoded` are the images of a prefill, `visual` [B, S] tells which columns are visual, `columns` [B, N] where they are
    (beyond the end of a row's own, any) and `behind` how many columns follow the last of them, in the row with fewest.
    `prefill` tells whether the cache is empty; None before the language model begins. `labels` are those of the forward,
    `asked` [B, S] the columns up to the prompt's end (None: all) and `known` the choices that an earlier forward of the same
    generation has made. `sound` tells of each condition on the input whether it holds; it waits for the next read of the
    device.
    `placed` tells whether the caller gave position ids, `positions` are those with several axes. `decisions` are the choices and
    `cuts` what they took away so far, `places` the position ids after the latest of several; `keys` [B, S', G, d] are those of
    the layer before the next one; `short_masks` the padding masks of a forward on a filled cache, by the layer of the cut.
    """

    input_ids: Tensor
    encoded: Encoded | None = None
    mask: Tensor | None = None
    prefill: bool | None = None
    repeat: int = 1
    visual: Tensor | None = None
    pictures: Sequence[Picture] = ()
    columns: Tensor | None = None
    behind: int = 0
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

    def lengths(self, layers: int) -> list[int]:
        """Sequence length in each of the decoder's `layers`, after the cuts made so far."""
        found = [self.visual.shape[1]] * layers
        for cut in self.cuts:
            found[cut.layer :] = [cut.index.shape[1]] * (layers - cut.layer)
        return found

    @property
    def sizes(self) -> list[int]:
        """Visual tokens of each sample."""
        return [len(picture.rows) for picture in self.pictures]

    @property
    def real(self) -> Tensor:
        """Columns that are not padding, [B, S] bool."""
        return torch.ones_like(self.visual) if self.mask is None else self.mask != 0

    @property
    def image_end(self) -> Tensor:
        """The last visual column of each row, [B]."""
        return (self.visual.long() * torch.arange(self.visual.shape[1], device=self.visual.device)).amax(1)

    @property
    def prompt_end(self) -> Tensor:
        """The last column of each row's prompt that is not padding, [B]."""
        mask = self.mask if self.asked is None else self.asked & self.real
        last = last_real(mask, self.visual.shape[1])
        return torch.as_tensor(last, device=self.visual.device).expand(len(self.visual))

    @property
    def state(self) -> tuple[Tensor, Tensor | None]:
        """Which columns are visual, [B, S'], and which hold the prompt without padding (None: all), as the sequence is now."""
        visual, mask, asked = self.visual, self.mask, self.asked
        if self.cuts:
            index, mask = self.cuts[-1].index, self.cuts[-1].mask
            visual, asked = take(visual, index), asked if asked is None else take(asked, index)
        if asked is None:
            return visual, mask  # pyrefly: ignore[bad-return]  # asked of a prefill, which has seen `visual`
        asked = asked if mask is None else asked & (mask != 0)
        return visual, asked  # pyrefly: ignore[bad-return]  # the same
