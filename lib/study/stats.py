"""Give estimates their intervals: bootstrap over images, as questions on one image are not independent."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lib.study.rounding import BOOTSTRAP, significant

RESAMPLES = 10_000
LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate with its 95 % interval.

    Attributes
    ----------
    estimate, low, high
        In the unit of the values.
    p
        Two-sided bootstrap p value against `threshold`.
    n
        Values used (questions).
    clusters
        Clusters resampled (images).
    """

    estimate: float
    low: float
    high: float
    p: float
    n: int
    clusters: int


@lru_cache(maxsize=4)
def _resampled_counts(clusters: int, seed: int) -> np.ndarray:
    """Return how often each cluster is drawn in each resample, [RESAMPLES, clusters] float32.

    Kept, because a claim family asks for the same matrix some hundred times. It is read only.
    """
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=RESAMPLES).astype(
        np.float32
    )
    counts.flags.writeable = False
    return counts


def _column(name: str, values: ArrayLike, length: int | None = None) -> np.ndarray:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or (length is not None and len(column) != length):
        raise ValueError(
            f"{name} must have shape ({length if length is not None else 'n'},), got {column.shape}"
        )
    if not np.isfinite(column).all():
        raise ValueError(f"{name} holds a value that is not finite: {column[~np.isfinite(column)][0]}")
    return column


def mean_interval(
    values: ArrayLike,
    cluster: Sequence,
    seed: int = 0,
    *,
    threshold: float = 0.0,
    weights: ArrayLike | None = None,
) -> Interval:
    """Estimate a mean, resampling whole clusters with replacement.

    Parameters
    ----------
    values
        [n] numbers, one a question.
    cluster
        [n] cluster labels (image ids).
    seed
        Of the resampling; the same seed gives the same interval.
    threshold
        What the p value is against.
    weights
        [n] positive weights; None weighs all alike. Used for the mean over suites of unequal size.

    Returns
    -------
    Interval
        The percentile interval of 10,000 resamples.
    """
    return mean_intervals([values], cluster, seed, threshold=threshold, weights=weights)[0]


def mean_intervals(
    rows: Sequence[ArrayLike],
    cluster: Sequence,
    seed: int = 0,
    *,
    threshold: float = 0.0,
    weights: ArrayLike | None = None,
) -> list[Interval]:
    """Estimate several means over the same questions: `mean_interval` of each row, to the bit.

    Parameters
    ----------
    rows
        [m, n] numbers, one row a mean, one column a question.
    cluster, seed, threshold, weights
        As in `mean_interval`.

    Returns
    -------
    list
        An `Interval` a row.
    """
    rows = [_column("values", values) for values in rows]
    count = len(rows[0])
    weights = np.ones(count) if weights is None else _column("weights", weights, count)
    labels = np.asarray(cluster)
    if labels.shape != (count,):
        raise ValueError(f"cluster must have shape {(count,)}, got {labels.shape}")
    if (weights <= 0).any():
        raise ValueError(f"weights must be positive, got {weights.min()}")
    ids, place = np.unique(labels, return_inverse=True)
    if len(ids) < 2:
        raise ValueError(f"cluster must name two clusters or more, got {len(ids)}")
    sizes = np.bincount(place, weights=weights)
    counts = _resampled_counts(len(ids), seed)
    drawn = counts @ sizes.astype(np.float32)
    estimates, means = [], np.empty((len(rows), RESAMPLES))
    for values, found in zip(rows, means, strict=True):
        sums = np.bincount(place, weights=values * weights)
        estimate = sums.sum() / sizes.sum()
        # Centred sums keep float32 resampling exact enough: the resampled quantity is a deviation, not a level.
        # One product a row: a product of matrices adds in an order of its own, and other roundings come out.
        deviation = counts @ (sums - estimate * sizes).astype(np.float32) / drawn
        found[:] = estimate + deviation.astype(np.float64)
        estimates.append(float(estimate))
    estimates = np.array(estimates)
    spread = np.quantile(means - estimates[:, None], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    bounds = estimates + significant(spread, BOOTSTRAP)  # the same on every processor
    return [
        Interval(estimate, float(low), float(high), _p_value(found, threshold), count, len(ids))
        for estimate, low, high, found in zip(estimates.tolist(), *bounds, means, strict=True)
    ]


def _p_value(means: np.ndarray, threshold: float) -> float:
    """Twice the smaller tail beyond the threshold, never below what the number of resamples can show."""
    tail = min((means <= threshold).sum(), (means >= threshold).sum())
    return float(min(1.0, 2 * (1 + tail) / (len(means) + 1)))


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    cluster: Sequence,
    seed: int = 0,
    *,
    threshold: float = 0.0,
    weights: ArrayLike | None = None,
) -> Interval:
    """Estimate the mean of ``a - b`` over the same questions, clustered by image.

    Parameters
    ----------
    a, b
        [n] scores of two arms, in the same question order.
    cluster, seed, threshold, weights
        As in `mean_interval`.

    Returns
    -------
    Interval
        Of the difference.
    """
    a = _column("a", a)
    return mean_interval(a - _column("b", b, len(a)), cluster, seed, threshold=threshold, weights=weights)


def holm(pvalues: Sequence[float]) -> np.ndarray:
    """Adjust p values of one family by Holm's step-down rule.

    Returns
    -------
    ndarray
        [n] adjusted values in the given order; those below 0.05 hold at a family-wise error of 5 %.

    Source: Holm (1979).
    """
    raw = _column("pvalues", pvalues)
    if ((raw < 0) | (raw > 1)).any():
        raise ValueError(f"pvalues must lie in [0, 1], got {raw[(raw < 0) | (raw > 1)][0]}")
    order = np.argsort(raw, kind="stable")
    stepped = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
