"""Random inputs for the tests of selections and methods."""

from __future__ import annotations

import math

import torch

from lib.pruning import methods, selection
from lib.pruning.contract import SQUARE, make_cues, on_meta, row_of
from lib.pruning.methods import Cues

__all__ = ["GRID", "all_selections", "build", "chosen", "example", "make_cues", "on_meta", "row_of"]

GRID = SQUARE


def build(name: str, keep: int | float = 9, **fields):
    return (
        methods.make(name, **fields) if name in ("none", "blind") else methods.make(name, keep=keep, **fields)
    )


def chosen(method, cues: Cues) -> list[list[int]]:
    return method.choose(cues).kept.tolist()


def example(seed: int, batch: int, tokens: int, width: int = 6):
    """Distinct positive scores, features with some near twins, and a relevance."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(batch, tokens, generator=generator)
    centres = torch.randn(batch, 3, width, generator=generator)
    group = torch.randint(3, (batch, tokens), generator=generator)
    noise = 0.2 * torch.randn(batch, tokens, width, generator=generator)
    return scores, centres.gather(1, group[..., None].expand(-1, -1, width)) + noise


def all_selections(scores, features, grid, keep):
    """Every batched selection on one input."""
    return {
        "top_k": selection.top_k(scores, keep),
        "split_top_k": selection.split_top_k(scores, scores.flip(-1), keep),
        "adaptive_nms": selection.adaptive_nms(scores, features, grid, keep),
        "adaptive_nms, no window": selection.adaptive_nms(
            scores, features, grid, keep, radius=math.inf, sigma_distance=math.inf
        ),
        "adaptive_nms, distance alone": selection.adaptive_nms(
            scores, None, grid, keep, sigma_similarity=math.inf
        ),
        "max_min": selection.max_min(features, keep),
        "dpp_map": selection.dpp_map(scores, features, keep),
    }
