"""Random inputs for the tests of selections and methods."""

from __future__ import annotations

import dataclasses
import math

import torch

from lib.pruning import methods, selection
from lib.pruning.methods import Cues

GRID = (6, 6)


def make_cues(seed: int = 0, batch: int = 2, grid: tuple[int, int] = GRID, width: int = 8) -> Cues:
    """Every cue filled with random values."""
    generator = torch.Generator().manual_seed(seed)
    tokens = math.prod(grid)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    def positive(*shape):
        return torch.rand(*shape, generator=generator)

    return Cues(
        grid=grid,
        features=normal(batch, tokens, width),
        saliency=positive(batch, 3, tokens),
        patches=normal(batch, tokens, width),
        image=normal(batch, width),
        tokens=normal(batch, 5, width),
        sentence=normal(batch, width),
        text_valid=torch.tensor([True, True, True, True, False]).expand(batch, -1),
        text_special=torch.tensor([True, False, False, True, False]).expand(batch, -1),
        text_importance=positive(batch, 5),
        attention=positive(batch, 4, tokens),
        keys=1 + 0.3 * normal(batch, tokens, width),  # one common part: neighbours are alike, as keys are
        evidence=positive(batch, tokens) > 0.8,
        seeds=list(range(batch)),
        vision_keys=normal(batch, tokens, 4),
        projected=normal(batch, tokens, width),
        prompt=normal(batch, 5, width),
        prompt_valid=torch.tensor([False, True, True, True, True]).expand(batch, -1),
        prompt_attention=positive(batch, 5, tokens),
    )


def row_of(cues: Cues, row: int) -> Cues:
    """The same cues with one row of the batch."""
    values = {}
    for field in dataclasses.fields(cues):
        value = getattr(cues, field.name)
        shared = field.name in ("grid", "stage") or value is None
        values[field.name] = value if shared else value[row : row + 1]
    return Cues(**values)


def on_meta(cues: Cues) -> Cues:
    """The same cues without values."""
    values = {field.name: getattr(cues, field.name) for field in dataclasses.fields(cues)}
    return Cues(**{k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in values.items()})


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
