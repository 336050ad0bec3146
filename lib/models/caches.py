"""What a pruned cache must remember, and how it stays true while rows of the cache move and columns leave it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import SupportsIndex

import torch
from torch import Tensor
from transformers import Cache

from lib.models.borrowed import CACHE

_RECORD = "_visual_token_record"  # name of the attribute on a cache that holds its `Record`


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

    def move(self, rows: Callable[[Tensor], Tensor]) -> Cut:
        """The same after `rows` was done to each tensor of the cache."""
        return replace(
            self,
            index=rows(self.index),
            stays=rows(self.stays),
            mask=None if self.mask is None else rows(self.mask),
            fewer=rows(self.fewer) if isinstance(self.fewer, Tensor) else self.fewer,
        )

    def shorten(self, columns: int) -> Cut:
        """The same without the last columns of the prompt, all of which stayed."""
        return replace(
            self,
            total=self.total - columns,
            index=self.index[:, :-columns],
            stays=self.stays[:, :-columns],
            mask=None if self.mask is None else self.mask[:, :-columns],
        )


class Stay:
    """Whether the call under way belongs to the context in which a cache was filled; copies of the cache share it."""

    def __init__(self, within: Callable[[], bool] = bool) -> None:
        self._within = within

    @property
    def open(self) -> bool:
        """Asked anew each time: while a context waits for the calls under way, others of its threads are outside."""
        return self._within()

    def __deepcopy__(self, memo: dict) -> Stay:
        return self

    def __reduce__(self):
        return Stay, ()


@dataclass
class Record:
    """What a pruned cache must remember to go on; copies of a cache that share its layers share it, too.

    Attributes
    ----------
    positions : how they count, as in `Method`.
    cuts : in the order of the layers.
    behind : columns of the prompt behind the image, in the row with fewest.
    stay : the context that the cache is in.
    deltas : [B, 1] by how much position ids are ahead of columns after an image of several axes; None without such.
    """

    positions: str
    cuts: tuple[Cut, ...]
    behind: int
    stay: Stay
    deltas: Tensor | None = None

    @property
    def schedule(self) -> tuple[int, ...]:
        return tuple(cut.layer for cut in self.cuts)

    @property
    def before(self) -> int:
        """Columns that no layer holds, since they were dropped before the language model."""
        return self.cuts[0].dropped if self.cuts[0].layer == 0 else 0

    @property
    def rows(self) -> int:
        """B."""
        return len(self.cuts[0].index)

    def move(self, rows: Callable[[Tensor], Tensor]) -> None:
        """Follow what was done to the rows of each tensor of the cache."""
        self.cuts = tuple(cut.move(rows) for cut in self.cuts)
        self.deltas = None if self.deltas is None else rows(self.deltas)

    def crop(self, removed: int, held: int) -> None:
        """Follow the removal of the last `removed` columns of a cache whose first layer holds `held`.

        Raises
        ------
        ValueError
            If columns of the image would go, of which the layers hold different numbers.
        """
        after = held + self.before - self.cuts[0].total
        if removed > after + self.behind:
            raise ValueError(
                f"tokens_to_remove must leave a pruned image whole: at most the last {after + self.behind} columns can go, "
                f"got {-removed}"
            )
        if removed > after:
            self.cuts = tuple(cut.shorten(removed - after) for cut in self.cuts)
            self.behind -= removed - after


class Following:
    """A cache whose record follows the operations on its rows and columns; comes before the class that does them."""

    def update(self, *args, **kwargs):
        record = record_of(self)
        if record is not None and not record.stay.open:
            raise ValueError(
                f"{CACHE} was filled inside prune and is of no use outside, where nothing knows which columns it lacks: go on "
                "inside the context, or in a new one with the same method"
            )
        return super().update(*args, **kwargs)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self._follow(lambda rows: rows.index_select(0, beam_idx.to(rows.device)))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._follow(lambda rows: rows[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._follow(lambda rows: rows.repeat_interleave(repeats, 0))

    def crop(self, tokens_to_remove: int) -> None:
        record = record_of(self)
        if record is not None and tokens_to_remove > 0:
            raise ValueError(
                "tokens_to_remove must be negative, the number of columns to remove: layers of a pruned cache differ in "
                f"length; got {tokens_to_remove}"
            )
        if record is not None:
            record.crop(-tokens_to_remove, self.get_seq_length())
        super().crop(tokens_to_remove)

    def reset(self) -> None:
        super().reset()
        setattr(self, _RECORD, None)

    def _follow(self, rows: Callable[[Tensor], Tensor]) -> None:
        record = record_of(self)
        if record is not None:
            record.move(rows)

    # The class is made at run time: it cannot be pickled by name.
    def __reduce_ex__(self, protocol: SupportsIndex):
        return _bare, (type(self).__mro__[2],), vars(self)


@functools.cache
def _following(kind: type[Cache]) -> type[Cache]:
    return type(kind.__name__, (Following, kind), {})


def _bare(kind: type[Cache]) -> Cache:
    return object.__new__(_following(kind))


def record_of(cache: Cache) -> Record | None:
    """What a pruned cache remembers; None of one that no pruned prefill filled."""
    return getattr(cache, _RECORD, None)


def remember(cache: Cache, record: Record) -> None:
    """Give a record to the cache that a pruned prefill has filled; from now on it follows the cache's own operations."""
    if not isinstance(cache, Following):
        cache.__class__ = _following(type(cache))
    setattr(cache, _RECORD, record)
