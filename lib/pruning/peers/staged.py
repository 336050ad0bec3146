"""What methods share that cut several times on the way through the language model, each time among what is left."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lib.pruning.base import Choice, Cues, Method
from lib.pruning.depth import PUBLISHED, check_ascending, schedule
from lib.pruning.picking import highest


@dataclass(frozen=True, kw_only=True)
class Staged(Method):
    """A method with several cuts; `keep` is what stays after the last one.

    Parameters
    ----------
    cuts
        Decoder layers of 32 on entering which tokens leave, mapped to the decoder at hand by :mod:`lib.pruning.depth`.
    layers
        The same as exact layers of the decoder at hand; given, it takes the place of `cuts`.
    """

    stage: ClassVar[str] = "staged"

    cuts: tuple[int, ...]
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        check_ascending("cuts", self.cuts, most=PUBLISHED - 1)
        if self.layers is not None:
            check_ascending("layers", self.layers)

    def schedule(self, layers: int) -> tuple[int, ...]:
        """The layers, of `layers`, on entering which this method cuts."""
        if self.layers is None:
            return schedule(self.cuts, layers)
        if self.layers[-1] >= layers:
            raise ValueError(f"layers={self.layers} must lie within a decoder of {layers} layers")
        return self.layers

    @property
    def stages(self) -> int:
        """How many cuts there are."""
        return len(self.cuts if self.layers is None else self.layers)

    def left(self, tokens: int) -> tuple[int, ...]:
        """How many of `tokens` are left after each cut."""
        return self.counts(tokens, *super().left(tokens))

    @abstractmethod
    def counts(self, tokens: int, keep: int) -> tuple[int, ...]:
        """Tokens left after each cut; the last is `keep`."""

    @abstractmethod
    def rank(self, cues: Cues) -> dict[str, Tensor]:
        """The scores, [B, N]; the first of them decides."""

    def choose(self, cues: Cues) -> Choice:
        scores = self.rank(cues)
        deciding = next(iter(scores.values()))
        if cues.among is not None:
            gone = torch.ones_like(deciding, dtype=torch.bool).scatter(1, cues.among, False)
            deciding = deciding.masked_fill(gone, -torch.inf)
        count = self.left(cues.count)[cues.stage]
        return Choice(highest(deciding, count).sort(dim=-1).values, scores)
