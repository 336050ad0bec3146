"""Merging: what a dropped token leaves behind in a kept one."""

from __future__ import annotations

import torch
from torch import Tensor

from lib.pruning.checks import check_scores, check_shape
from lib.pruning.precision import cosine, product


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
    batch, tokens, _ = features.shape
    check_shape("kept", kept, B=batch, k=None)
    check_places("kept", kept, tokens)
    check_scores("features", features)
    if kept.shape[1] == tokens:
        return features
    nearest = cosine(features, gather_rows(features, kept)).argmax(-1)  # [B, N]; the first of equal maxima
    return join(features, kept, nearest)


def join(features: Tensor, kept: Tensor, nearest: Tensor) -> Tensor:
    """Average every token into the kept token of its group.

    Parameters
    ----------
    features
        [B, N, D].
    kept
        [B, k] int64, ascending positions of the kept tokens.
    nearest
        [B, N] int64, each token's group: a place in ``kept``. A kept token belongs to its own, whatever is said.

    Returns
    -------
    Tensor
        [B, k, D] in the dtype of ``features``; where all tokens are kept, ``features`` itself.
    """
    count = kept.shape[1]
    if count == features.shape[1]:
        return features
    slots = torch.arange(count, device=features.device)
    nearest = nearest.scatter(1, kept, slots.expand(kept.shape[0], -1))
    # A product, since a scattered sum has no fixed order.
    member = (nearest[..., None] == slots).float()  # [B, N, k]
    return (product(member.mT, features.float()) / member.sum(1)[..., None]).to(features.dtype)


def gather_rows(features: Tensor, places: Tensor) -> Tensor:
    """Rows of ``features`` [B, N, D] at ``places`` [B, M]: [B, M, D]."""
    return features.gather(1, places[..., None].expand(-1, -1, features.shape[2]))


def check_places(name: str, places: Tensor, tokens: int) -> None:
    """Refuse [B, M] positions that are not int64, ascending and within 0..N-1; the values on the CPU alone."""
    count = places.shape[1]
    if not 1 <= count <= tokens:
        raise ValueError(f"{name} must have 1 to {tokens} positions a row, got {count}")
    if places.dtype != torch.int64:
        raise ValueError(f"{name} must be int64, got {places.dtype}")
    if places.device.type != "cpu":
        return
    low, high = places.min().item(), places.max().item()
    if low < 0 or high >= tokens:
        raise ValueError(f"{name} must lie in 0..{tokens - 1}, got {low}..{high}")
    if not (places.diff(dim=-1) > 0).all():
        raise ValueError(f"{name} must be ascending and distinct in every row, got {places.tolist()}")
