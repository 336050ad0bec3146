"""Numbers to the digits that recur on every processor, stated here once: for figures, their CSV files and `make verify`.

Sums of float32 numbers are added in another order on another kind of processor, so what comes out of the model's features
differs there in its last digits, by up to a few units in the fourth digit where raw features meet an exponential.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

SIGNIFICANT = 3  # digits kept of each number of a figure below that declares no decimals
# Figures drawn from what the model computes on the spot, with the decimals that are kept. None keeps `SIGNIFICANT` digits of each
# number: right for numbers of many sizes, wrong for differences, whose last digits are noise near zero.
FIGURES: Mapping[str, int | None] = MappingProxyType(
    {
        "00_photograph": None,
        "10_alignment": None,
        "10_patch_and_word": 3,
        "10_query_query": None,
        "10_residual_and_attention": 3,
        "10_sign_check": 3,
        "20_cues_measured": 3,
        "20_positional_bias": 3,
        "20_redundancy": 3,
        "20_suppression": 5,
    }
)
BOOTSTRAP = 6  # significant digits of a resampled deviation, whose float32 sums are good to about seven


def significant(values: ArrayLike, digits: int) -> np.ndarray:
    """Each number to so many significant digits, float64, by its text: a product with a power of ten has last bits of its own."""
    values = np.asarray(values, dtype=np.float64)
    return np.array([float(f"{value:.{digits - 1}e}") for value in values.ravel()]).reshape(values.shape)


def rounded(figure: str, numbers):
    """What a figure shows, to its digits.

    Parameters
    ----------
    figure
        File stem of the figure; of one that is not in `FIGURES` all digits are kept.
    numbers
        A frame, of which the columns of floats are rounded, or an array or a tensor, which becomes a float64 array.
    """
    if isinstance(numbers, pd.DataFrame):
        floats = numbers.select_dtypes("floating").columns
        return numbers.assign(**{name: rounded(figure, numbers[name].to_numpy()) for name in floats})
    values = np.asarray(numbers, dtype=np.float64)
    if figure not in FIGURES:
        return values
    decimals = FIGURES[figure]
    return (
        significant(values, SIGNIFICANT) if decimals is None else values.round(decimals) + 0.0
    )  # no minus zero


def recurs(figure: str, one: float, other: float) -> bool:
    """Whether two numbers of a figure are the same up to one unit of the last digit kept, as rounding may go either way."""
    decimals = FIGURES[figure]
    if decimals is None:
        decimals = SIGNIFICANT - 1 - int(f"{max(abs(one), abs(other)):e}".split("e")[1])
    return (
        abs(one - other) <= 1.0001 * 10.0**-decimals
    )  # the numbers are written in base ten and held in base two
