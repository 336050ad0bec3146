"""Merging: what a dropped token leaves behind in a kept one."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.pruning.checks import check_scores, check_shape
from lib.pruning.precision import cosine


def average_into_kept(features: Tensor, kept: Tensor) -> Tensor:
    """Average every dropped token into the kept token that it resembles most.

    Parameters
    ----------
    features
        [B, N, D] features of all visual tokens.
    kept
        [B, k] int64, ascending and distinct positions of the kept tokens.

    Returns
    -------
    Tensor
        [B, k, D] in the dtype of ``features``: the plain mean of each kept token and the dropped tokens with
        the highest cosine similarity to it (ties go to the lower position). Where all tokens are kept,
        ``features`` itself.

    Raises
    ------
    ValueError
        Shapes that do not fit; on CPU also NaN or infinite features and positions that are not ascending or
        lie outside 0..N-1.

    Source: DeSAP section 4.3. That the kept token counts in the mean with weight 1 is our reading.
    """
    check_shape("features", features, B=None, N=None, D=None)
    batch, tokens, width = features.shape
    check_shape("kept", kept, B=batch, k=None)
    _check_kept(kept, tokens)
    check_scores("features", features)
    count = kept.shape[1]
    if count == tokens:
        return features

    centres = features.gather(1, kept[..., None].expand(-1, -1, width))
    slots = torch.arange(count, device=features.device)
    nearest = cosine(features, centres).argmax(-1)  # [B, N]; argmax gives the first of equal maxima
    nearest = nearest.scatter(1, kept, slots.expand(batch, -1))  # a kept token stays its own centre
    member = (
        nearest[..., None] == slots
    ).float()  # [B, N, k]; a product, since a scattered sum has no fixed order
    return ((member.mT @ features.float()) / member.sum(1)[..., None]).to(features.dtype)


def _check_kept(kept: Tensor, tokens: int) -> None:
    count = kept.shape[1]
    if not 1 <= count <= tokens:
        raise ValueError(f"kept must have 1 to {tokens} positions a row, got {count}")
    if kept.dtype != torch.int64:
        raise ValueError(f"kept must be int64, got {kept.dtype}")
    if kept.device.type != "cpu":
        return
    if kept.min() < 0 or kept.max() >= tokens:
        raise ValueError(f"kept must lie in 0..{tokens - 1}, got {kept.min().item()}..{kept.max().item()}")
    if not (kept.diff(dim=-1) > 0).all():
        raise ValueError(f"kept must be ascending and distinct in every row, got {kept.tolist()}")
