"""What the restated rules share, in NumPy: one sample, plain loops, double precision.

They share no code with the library, so that an error has to be made twice to pass unseen.
"""

from __future__ import annotations

import math

import numpy as np


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; a zero row stays zero."""
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def first_best(scores: np.ndarray, taken: list[int]) -> int:
    """The highest score not yet taken; the lowest position among equals."""
    left = np.array(scores, dtype=np.float64)
    left[taken] = -math.inf
    return int(np.argmax(left))  # the first of equal maxima


def top_k(scores: np.ndarray, count: int) -> list[int]:
    """Positions of the highest scores, highest first."""
    picks: list[int] = []
    for _ in range(count):
        picks.append(first_best(scores, picks))
    return picks


def adaptive_nms(
    scores: np.ndarray,
    keys: np.ndarray,
    grid: tuple[int, int],
    count: int,
    radius: float = 5.0,
    sigma_distance: float = 1.5,
    sigma_similarity: float = 0.05,
) -> list[int]:
    """AdaptPrune's picks in order; a chosen token is never chosen again."""
    keys = unit(keys)
    live = np.array(scores, dtype=np.float64)
    picks: list[int] = []
    for _ in range(count):
        pick = first_best(live, picks)
        picks.append(pick)
        for other in range(len(live)):
            down = other // grid[1] - pick // grid[1]
            across = other % grid[1] - pick % grid[1]
            distance = math.hypot(down, across)
            if distance <= radius:
                near = math.exp(-(distance**2) / (2 * sigma_distance**2))
                alike = math.exp(-((1 - float(keys[other] @ keys[pick])) ** 2) / (2 * sigma_similarity**2))
                live[other] *= 1 - near * alike
    return picks
