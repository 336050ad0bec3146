"""Measure what the methods are built on: small quantities on captured cues, one value a question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import MISSING, fields, replace

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import normalize

from lib.pruning.base import Cues, Method, comments
from lib.pruning.cues import decoupled_similarity
from lib.pruning.precision import cosine, wide
from lib.pruning.selection import top_k
from lib.study.stats import Interval, mean_interval


def alignment_parts(cues: Cues, normalised: bool = True) -> dict[str, Tensor]:
    """The products that DeSAP's Eq. 3 is made of.

    Returns
    -------
    dict
        "match" [B, N, T] patch with word, "alpha" [B, N] patch with sentence, "beta" [B, T] word with image.
    """
    parts = [wide(part) for part in (cues.patches, cues.tokens, cues.image, cues.sentence)]
    local, tokens, image, sentence = (normalize(part, dim=-1) for part in parts) if normalised else parts
    return {
        "match": local @ tokens.mT,
        "alpha": (local * sentence[:, None]).sum(-1),
        "beta": (tokens * image[:, None]).sum(-1),
    }


def closed_form(cues: Cues, normalised: bool = True) -> Tensor:
    """Eq. 3 with both of its softmaxes flat, up to a factor: word mean of (alpha + beta) * match, [B, N]."""
    parts, valid = alignment_parts(cues, normalised), cues.text_valid
    product = (parts["alpha"][..., None] + parts["beta"][:, None]) * parts["match"]
    return product.masked_fill(~valid[:, None], 0.0).sum(-1) / valid.sum(-1, keepdim=True)


def weight_spread(cues: Cues, scale: float, normalised: bool = True) -> np.ndarray:
    """Widest range of the exponents of Eq. 3's softmax over words, over a question's patches: [B]."""
    parts, valid = alignment_parts(cues, normalised), cues.text_valid[:, None]
    exponent = scale * parts["beta"][:, None] * parts["match"]
    top = exponent.masked_fill(~valid, -math.inf).amax(-1)
    return (top - exponent.masked_fill(~valid, math.inf).amin(-1)).amax(-1).numpy()


def flatness(cues: Cues, scales: Sequence[float], keep: int, seed: int = 0) -> pd.DataFrame:
    """How far Eq. 3 is from its closed form, for unit-length and for raw features.

    Returns
    -------
    DataFrame
        A row a kind of features and scale: mean rank correlation of the two maps with its interval, share of
        the `keep` highest tokens in common, and the factor between the largest and the smallest weight that
        a patch gives its words (decimal logarithm, median over questions: raw features can leave any range).
    """
    rows = []
    parts = (cues.patches, cues.tokens, cues.image, cues.sentence, cues.text_valid)
    for kind, normalised in (("unit length", True), ("raw", False)):
        closed = closed_form(cues, normalised)
        best = top_k(closed.float(), keep)
        for scale in scales:
            aligned = decoupled_similarity(*parts, scale, normalised=normalised)
            found = rank_correlations(aligned, closed)
            usable = np.isfinite(found)
            rows.append(
                {"features": kind, "scale": scale}
                | interval_row(found[usable], np.flatnonzero(usable), seed)
                | {
                    "shared": shared(top_k(aligned, keep), best).mean(),
                    "log10_factor": float(np.median(weight_spread(cues, scale, normalised))) / math.log(10),
                }
            )
    return pd.DataFrame(rows)


def times(log10_factor: float) -> str:
    """Write a factor for reading: digits where it is small, a power of ten where it is not."""
    return f"{10**log10_factor:.3f}" if log10_factor < 3 else f"10^{log10_factor:.0f}"


def other_question(cues: Cues) -> Cues:
    """The same pictures, each with the words of the next row's question: a control for the text cue."""
    names = ("tokens", "sentence", "text_valid", "text_special", "text_importance")
    return replace(cues, **{name: getattr(cues, name).roll(1, 0) for name in names})


def rank_correlations(left: Tensor, right: Tensor) -> np.ndarray:
    """Spearman's correlation of two maps, one value a row: [B]. A constant map has none and gives NaN."""
    rows = zip(np.asarray(left), np.asarray(right), strict=True)
    flat = [np.nan if np.ptp(a) == 0 or np.ptp(b) == 0 else spearmanr(a, b).statistic for a, b in rows]
    return np.array(flat)


def shared(kept: Tensor, others: Tensor) -> np.ndarray:
    """Share of `kept` [B, k] that `others` [B, j] hold too: [B]."""
    return (kept[:, :, None] == others[:, None]).any(-1).double().mean(-1).numpy()


def on_mask(kept: Tensor, mask: Tensor) -> np.ndarray:
    """Share of the kept tokens [B, k] that lie where `mask` [B, N] is true: [B]."""
    return mask.gather(1, kept).double().mean(-1).numpy()


def interval_row(values: Sequence[float], cluster: Sequence, seed: int = 0) -> dict[str, float]:
    """Mean of one value a question, with its 95 % interval over pictures, as columns of a frame."""
    found = mean_interval(values, cluster, seed)
    return {"mean": found.estimate, "low": found.low, "high": found.high}


def side(interval: Interval | dict[str, float], level: float) -> str:
    """Say where an interval lies: "above", "below" or "not clearly different from" a level."""
    low, high = (
        (interval["low"], interval["high"]) if isinstance(interval, dict) else (interval.low, interval.high)
    )
    return "above" if low > level else "below" if high < level else "not clearly different from"


def border(grid: tuple[int, int], width: int = 1) -> np.ndarray:
    """Tokens within `width` cells of the edge: [N] bool."""
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) < width for n in grid)
    return (rows[:, None] | columns[None]).reshape(-1)


def distances(grid: tuple[int, int]) -> np.ndarray:
    """Euclidean distance between tokens in grid cells: [N, N]."""
    place = np.stack(np.divmod(np.arange(grid[0] * grid[1]), grid[1]), 1)
    return np.sqrt(((place[:, None] - place[None]) ** 2).sum(-1))


def likeness_by_distance(keys: Tensor, grid: tuple[int, int], others: Tensor | None = None) -> np.ndarray:
    """Mean cosine between tokens whose distance rounds to 1, 2, ...: [B, bins].

    Parameters
    ----------
    keys : [B, N, D].
    grid : (rows, columns).
    others : second member of each pair, [B, N, D]; None takes the same picture. Another picture's keys give a
        control: pairs as far apart that share no content.
    """
    bins = np.rint(distances(grid)).astype(int)
    likeness = cosine(keys, keys if others is None else others).numpy()
    return np.stack([likeness[:, bins == step].mean(-1) for step in range(1, max(grid))], 1)


def fading(method: Method, keys: Tensor, grid: tuple[int, int]) -> np.ndarray:
    """Factor that a pick takes off each other token under AdaptPrune's fields: [B, N, N]."""
    apart = distances(grid)
    near = np.where(apart <= method.radius, np.exp(-0.5 * (apart / method.sigma_distance) ** 2), 0.0)
    gap = 1 - cosine(keys, keys).numpy().astype(float)
    return near * np.exp(-0.5 * (gap / method.sigma_similarity) ** 2)


def replay(scores: Tensor, fade: np.ndarray, picks: Sequence[int]) -> np.ndarray:
    """Score map before each pick and after the last: [k + 1, N].

    Parameters
    ----------
    scores : [N] map that the first pick is made on.
    fade : [N, N] from `fading`.
    picks : tokens in the order of picking.
    """
    maps = [np.asarray(scores, dtype=float)]
    for pick in picks:
        maps.append(maps[-1] * (1 - fade[pick]))
    return np.stack(maps)


def picked_in_order(maps: np.ndarray, picks: Sequence[int]) -> bool:
    """Whether every pick was the highest score left (to rounding) on the map before it."""
    for step, pick in enumerate(picks):
        free = np.delete(maps[step], picks[:step])
        if maps[step][pick] < free.max() * (1 - 1e-5):
            return False
    return True


def crowding(kept: Tensor, keys: Tensor, grid: tuple[int, int]) -> pd.DataFrame:
    """Mean distance of kept tokens to the nearest other, and cosine to the most alike other; a row each."""
    apart = torch.from_numpy(distances(grid)).expand(len(kept), -1, -1)
    alone = torch.eye(kept.shape[1], dtype=torch.bool)
    rows = kept[..., None]
    across = rows.mT.expand(-1, kept.shape[1], -1)
    nearest = apart.gather(1, rows.expand(-1, -1, apart.shape[2])).gather(2, across)
    chosen = keys.gather(1, rows.expand(-1, -1, keys.shape[2]))
    alike = cosine(chosen, chosen).masked_fill(alone, -math.inf).amax(-1).mean(-1)
    return pd.DataFrame(
        {
            "nearest": nearest.masked_fill(alone, math.inf).amin(-1).mean(-1).numpy(),
            "alike": alike.double().numpy(),
        }
    )


def nearest_kept(features: Tensor, kept: Tensor) -> np.ndarray:
    """For each token of one picture the kept token that it resembles most: [N], from [N, D] and [k]."""
    nearest = kept[cosine(features[None], features[kept][None])[0].argmax(-1)]
    return nearest.scatter(0, kept, kept).numpy()


def switches(kind: type[Method]) -> pd.DataFrame:
    """The fields of a method with default and origin, read from the comments of its own source."""
    origin = comments(kind)
    rows = [
        {"field": field.name, "default": repr(field.default), "origin": origin[field.name]}
        for field in fields(kind)
        if field.name in origin and field.default is not MISSING
    ]
    return pd.DataFrame(rows)
