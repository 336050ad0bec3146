"""Random inputs of a selection."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.pruning import methods
from lib.study.cost import TEXT


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the selections read: [B, N] scores, [B, N, D] features, (rows, columns)."""

    grid: tuple[int, int]
    scores: Tensor
    second: Tensor
    features: Tensor

    def cues(self) -> methods.Cues:
        """The same as cues, for selections that are written inside a method."""
        return methods.Cues(
            grid=self.grid,
            features=self.features,
            saliency=self.scores[:, None],
            keys=self.features,
            projected=self.features,
            seeds=list(range(len(self.scores))),
            attended_keys=self.features,
            final_states=self.features,
            prompt_keys=self.features[:, :TEXT],
            prompt_states=self.features[:, :TEXT],
            prompt_valid=torch.ones(len(self.scores), min(TEXT, self.features.shape[1]), dtype=torch.bool),
        )


def make_inputs(tokens: int, width: int, batch: int, seed: int = 0) -> Inputs:
    """Random scores without ties, and features that fall into twelve kinds, as patches of one image do."""
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise ValueError(f"tokens must be a square number, for a square grid; got {tokens}")
    draw = torch.Generator().manual_seed(seed)
    kinds = torch.randn(batch, 12, width, generator=draw)
    kind = torch.randint(12, (batch, tokens), generator=draw)
    features = kinds.gather(1, kind[..., None].expand(-1, -1, width))
    features = features + 0.3 * torch.randn(batch, tokens, width, generator=draw)
    scores, second = torch.rand(2, batch, tokens, generator=draw)
    return Inputs((side, side), scores, second, features)
