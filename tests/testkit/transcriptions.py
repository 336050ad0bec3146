"""Slow transcriptions of the selection rules in NumPy: one sample, plain loops, double precision.

They share no code with the library, so that an error has to be made twice to pass unseen.
"""

from __future__ import annotations

import math

import numpy as np

from lib.study.parity.oracles import first_best, top_k, unit


def split_top_k(first: np.ndarray, second: np.ndarray, count: int, share: float) -> list[int]:
    """DeSAP Eq. 5: the first map's best, then the second map's best among the rest; ascending."""
    picks = top_k(first, round(share * count))
    while len(picks) < count:
        picks.append(first_best(second, picks))
    return sorted(picks)


def fine_grained_alignment(
    local: np.ndarray, words: np.ndarray, image: np.ndarray, sentence: np.ndarray, scale: float
) -> np.ndarray:
    """DeSAP Eq. 3 for one image and its real words, features used as given."""
    patches, count = len(local), len(words)
    match = np.array([[float(local[i] @ words[j]) for j in range(count)] for i in range(patches)])
    alpha = np.array([float(local[i] @ sentence) for i in range(patches)])
    beta = np.array([float(words[j] @ image) for j in range(count)])
    relevance = np.zeros(patches)
    for i in range(patches):
        for j in range(count):
            over_words = sum(math.exp(scale * beta[k] * match[i, k]) for k in range(count))
            over_patches = sum(math.exp(scale * alpha[k] * match[k, j]) for k in range(patches))
            from_patch = alpha[i] * math.exp(scale * beta[j] * match[i, j]) / (patches * over_words)
            from_word = beta[j] * math.exp(scale * alpha[i] * match[i, j]) / (count * over_patches)
            relevance[i] += (from_patch + from_word) * match[i, j] / count
    return relevance


def centre_prior_24() -> np.ndarray:
    """AdaptPrune's correction of the attention on its 24x24 grid, raster order."""
    line = np.linspace(-12, 12, 24)
    prior = np.array([[math.exp(-(x * x + y * y) / (2 * 12.0**2)) for x in line] for y in line])
    return (prior / prior.max()).ravel()


def max_min(features: np.ndarray, count: int) -> list[int]:
    """Greedy max-min cosine distance in picking order, from the token with the farthest nearest other."""
    distance = 1 - unit(features) @ unit(features).T
    tokens = len(distance)
    picks: list[int] = []
    for _ in range(count):
        against = [picks or [j for j in range(tokens) if j != i] for i in range(tokens)]
        worth = np.array([min((distance[i, j] for j in against[i]), default=math.inf) for i in range(tokens)])
        picks.append(first_best(worth, picks))
    return picks


def dpp_map(relevance: np.ndarray, features: np.ndarray, count: int) -> list[int]:
    """Greedy determinant maximisation by computing every candidate's determinant anew; picking order."""
    kernel = np.outer(relevance, relevance) * (unit(features) @ unit(features).T)
    picks: list[int] = []
    for _ in range(count):
        worth = np.array(
            [np.linalg.det(kernel[np.ix_([*picks, i], [*picks, i])]) for i in range(len(kernel))]
        )
        picks.append(first_best(worth, picks))
    return picks


def average_into_kept(features: np.ndarray, kept: list[int]) -> np.ndarray:
    """DeSAP's average merging: every dropped token joins the most similar kept one."""
    direction = unit(features)
    groups = {centre: [centre] for centre in kept}
    for token in range(len(features)):
        if token not in groups:
            likeness = [float(direction[token] @ direction[centre]) for centre in kept]
            groups[kept[int(np.argmax(likeness))]].append(token)
    return np.stack([np.mean([features[token] for token in groups[centre]], axis=0) for centre in kept])
