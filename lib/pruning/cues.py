"""The cues: what tells a visual token's worth. Each gives one float32 map over the tokens.

Shapes: B batch, N visual tokens, T text tokens, E width of the joint image-text space, H attention heads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.pruning.checks import (
    check_flag,
    check_grid,
    check_integer,
    check_mask,
    check_number,
    check_option,
    check_scores,
    check_shape,
)
from lib.pruning.precision import unit, wide

POOLINGS = ("tokens", "sentence")
PRIOR_HALF_WIDTH = 12.0  # AdaptPrune's released code spans every side with coordinates from -12 to 12


def cls_saliency(attention: Tensor) -> Tensor:
    """Saliency of each patch: the [CLS] token's attention to it, averaged over the heads.

    Parameters
    ----------
    attention
        [B, H, N] attention weights of the [CLS] query over the patches, any floating dtype.

    Returns
    -------
    Tensor
        [B, N] float32.

    Source: DeSAP section 4.2, Eq. 4.
    """
    return _head_mean(attention)


def last_query_saliency(attention: Tensor) -> Tensor:
    """Saliency of each visual token: attention of the last prompt token to it, averaged over the heads.

    Parameters
    ----------
    attention
        [B, H, N] attention weights of the last real prompt token, cut to the visual tokens.

    Returns
    -------
    Tensor
        [B, N] float32.

    Source: FastV, and the first step of AdaptPrune (released code).
    """
    return _head_mean(attention)


def decoupled_similarity(
    local: Tensor,
    tokens: Tensor,
    image: Tensor,
    sentence: Tensor,
    valid: Tensor | None = None,
    scale: float = 0.1,
    aligned: bool = True,
    *,
    normalised: bool = True,
    pooling: str = "tokens",
) -> Tensor:
    """Task relevance of each patch: how well its local feature matches the question.

    Parameters
    ----------
    local
        [B, N, E] patches in the joint space. Given the attention part of the last vision layer this is the
        decoupled similarity; given the final hidden state, the vanilla one.
    tokens
        [B, T, E] text tokens in the joint space.
    image
        [B, E] the [CLS] row of the projection that made ``local``.
    sentence
        [B, E] the [EOS] text embedding.
    valid
        [B, T] bool, true where a text token counts; ``None`` counts all. The rest leaves every sum.
    scale
        The exponent's factor (lambda).
    aligned
        True: fine-grained alignment. False: the plain similarity, pooled over the text.
    normalised
        True: rows are scaled to unit length first (cosine). False: raw features.
    pooling
        Only where ``aligned`` is False: "tokens" averages over the valid text tokens, "sentence" compares
        with the [EOS] embedding.

    Returns
    -------
    Tensor
        [B, N] float32.

    Raises
    ------
    ValueError
        Shapes that do not fit, a row without a valid text token, NaN or infinite features.

    Source: DeSAP section 4.1, Eq. 3. The paper names no pooling for the similarity without alignment and does
    not say whether rows are normalised: both are arguments.
    """
    check_shape("local", local, B=None, N=None, E=None)
    batch, _, width = local.shape
    check_shape("tokens", tokens, B=batch, T=None, E=width)
    check_shape("image", image, B=batch, E=width)
    check_shape("sentence", sentence, B=batch, E=width)
    check_number("scale", scale)
    check_flag("aligned", aligned)
    check_flag("normalised", normalised)
    check_option("pooling", pooling, POOLINGS)
    valid = _valid_mask(valid, tokens)

    # Padding may hold anything, NaN included: it is emptied before it can meet a patch.
    tokens = tokens.masked_fill(~valid[..., None], 0.0)
    for name, value in (("local", local), ("tokens", tokens), ("image", image), ("sentence", sentence)):
        check_scores(name, value)
    scaled = unit if normalised else wide
    local, tokens, image, sentence = (scaled(part) for part in (local, tokens, image, sentence))

    match = local @ tokens.mT  # [B, N, T]
    patch_to_sentence = (local * sentence[:, None]).sum(-1)  # [B, N]
    count = valid.sum(-1, keepdim=True)  # [B, 1]
    if aligned:
        word_to_image = (tokens * image[:, None]).sum(-1)  # [B, T]
        match = match * _alignment(match, patch_to_sentence, word_to_image, valid, count, scale)
    elif pooling == "sentence":
        return patch_to_sentence.float()
    return (match.masked_fill(~valid[:, None], 0.0).sum(-1) / count).float()


def _alignment(
    match: Tensor,
    patch_to_sentence: Tensor,
    word_to_image: Tensor,
    valid: Tensor,
    count: Tensor,
    scale: float,
) -> Tensor:
    """The two cross-modal weights of every patch-word pair, summed: [B, N, T] (DeSAP Eq. 3, MV + MT)."""
    over_words = (scale * word_to_image[:, None] * match).masked_fill(~valid[:, None], -torch.inf).softmax(-1)
    over_patches = (scale * patch_to_sentence[..., None] * match).softmax(-2)
    from_patch = patch_to_sentence[..., None] * over_words / match.shape[1]
    from_word = word_to_image[:, None] * over_patches / count[..., None]
    return from_patch + from_word


def key_tokens(valid: Tensor, importance: Tensor, count: int) -> Tensor:
    """Keep the ``count`` most important text tokens of each row.

    Parameters
    ----------
    valid
        [B, T] bool, the tokens to choose among.
    importance
        [B, T] worth of each token, e.g. the attention of [EOS] to it in the last text layer.
    count
        Tokens to keep; a row with fewer valid tokens keeps them all. Ties go to the earlier token.

    Returns
    -------
    Tensor
        [B, T] bool.

    Source: DeSAP appendix B.1 filters long questions by token importance and gives neither formula nor
    number.
    """
    check_shape("valid", valid, B=None, T=None)
    check_shape("importance", importance, B=valid.shape[0], T=valid.shape[1])
    check_integer("count", count, least=1)
    valid = check_mask("valid", valid)
    worth = importance.float().masked_fill(~valid, -torch.inf)
    check_scores("importance", worth.masked_fill(~valid, 0.0))
    order = worth.sort(dim=-1, descending=True, stable=True).indices
    rank = order.sort(dim=-1).indices  # the inverse permutation
    return (rank < count) & valid


def centre_prior(
    grid: tuple[int, int], sigma: float = 12.0, device: torch.device | str | None = None
) -> Tensor:
    """A Gaussian over the grid, highest in the middle and scaled to a maximum of 1.

    Parameters
    ----------
    grid
        (rows, columns).
    sigma
        Width, in cells of a 24x24 grid: every side runs from -12 to 12 whatever its number of cells, so the
        prior has one shape relative to the image. For 24x24 this is the released code; for any other grid it
        is our extension. Infinity gives a flat prior.
    device
        Where the result lives.

    Returns
    -------
    Tensor
        [N] float32, raster order.

    Source: AdaptPrune, the released code's distribution correction.
    """
    rows, columns = check_grid(grid)
    check_number("sigma", sigma, above=0.0, finite=False)
    down, across = (
        torch.linspace(-PRIOR_HALF_WIDTH, PRIOR_HALF_WIDTH, side, dtype=torch.float64)
        for side in (rows, columns)
    )
    prior = torch.exp(-0.5 * (down[:, None] ** 2 + across**2) / sigma / sigma).flatten()
    # A narrow prior on an even grid underflows to zero at every cell, hence the guard on the maximum.
    return (
        (prior / prior.max().clamp_min(torch.finfo(prior.dtype).tiny)).float().to(device, non_blocking=True)
    )


def recency_detrended(attention: Tensor) -> Tensor:
    """Divide each row by the exponential trend of its attention along the raster order.

    Parameters
    ----------
    attention
        [B, N], not negative.

    Returns
    -------
    Tensor
        [B, N] float32; the trend is 1 at the middle of the row, so a row without trend stays as it is.

    Source: arXiv 2508.17807 takes the recency trend out of attention before pruning. Fitting it on each row, by least
    squares of the logarithm, is our reading; what lies below a thousandth of the row's mean counts as that, so that
    zeros do not steer the fit.
    """
    check_shape("attention", attention, B=None, N=None)
    check_scores("attention", attention)
    row = wide(attention)
    floor = row.mean(-1, keepdim=True) * 1e-3 + torch.finfo(torch.float32).tiny
    place = torch.arange(row.shape[1], dtype=row.dtype, device=row.device)
    place = place - place.mean()
    slope = (row.maximum(floor).log() * place).sum(-1, keepdim=True) / place.square().sum().clamp_min(1.0)
    return (row * torch.exp(-slope * place)).float()


def to_unit_range(scores: Tensor) -> Tensor:
    """Each row shifted and scaled to 0..1; a constant row becomes zeros."""
    low = scores.amin(-1, keepdim=True)
    spread = scores.amax(-1, keepdim=True) - low
    return (scores - low) / spread.clamp_min(1e-12)


def _head_mean(attention: Tensor) -> Tensor:
    check_shape("attention", attention, B=None, H=None, N=None)
    check_scores("attention", attention)
    return attention.float().mean(1)


def _valid_mask(valid: Tensor | None, tokens: Tensor) -> Tensor:
    if valid is None:
        return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    check_shape("valid", valid, B=tokens.shape[0], T=tokens.shape[1])
    valid = check_mask("valid", valid).to(tokens.device)
    if valid.device.type == "cpu" and not valid.any(-1).all():
        empty = (~valid.any(-1)).nonzero().flatten().tolist()
        raise ValueError(f"valid must keep at least one text token a row; rows {empty} have none")
    return valid
