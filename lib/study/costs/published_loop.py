"""AdaptPrune's choice as released code goes about it, the measure of every faster one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize


def published_loop(
    scores: Tensor,
    keys: Tensor,
    grid: tuple[int, int],
    keep: int,
    radius: float = 5.0,
    sigma_distance: float = 1.5,
    sigma_similarity: float = 0.05,
) -> list[int]:
    """AdaptPrune's choice as it was published: one argmax and one read of the device a token.

    Written from the description of the released code, as a measure of cost: keys are scaled once, every pick is
    compared with all positions, a boolean mask says which of them fade, and a chosen token can come again.

    Parameters
    ----------
    scores
        [N].
    keys
        [N, D].
    grid, keep, radius, sigma_distance, sigma_similarity
        As in :func:`lib.pruning.selection.adaptive_nms`; `keep` is a count.

    Returns
    -------
    list of int
        Picks in their order. `lib.study.parity.oracles.adaptive_nms` is the plainer and slower transcription.
    """
    rows, columns = grid
    sides = (torch.arange(side, device=scores.device) for side in grid)
    down, across = torch.meshgrid(*sides, indexing="ij")
    keys = normalize(keys, dim=-1)
    live = scores.clone().view(rows, columns)
    picks: list[int] = []
    while True:
        pick = torch.argmax(live).item()
        picks.append(pick)
        if len(picks) == keep:
            break
        distance = ((down - pick // columns).float() ** 2 + (across - pick % columns).float() ** 2).sqrt()
        likeness = cosine_similarity(keys, keys[pick][None], dim=-1).view(rows, columns)
        near = torch.exp(-(distance**2) / (2 * sigma_distance**2))
        alike = torch.exp(-((1 - likeness) ** 2) / (2 * sigma_similarity**2))
        window = distance <= radius
        live[window] *= 1 - (near * alike)[window]
    return picks
