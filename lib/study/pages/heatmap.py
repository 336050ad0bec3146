"""Draw a table as coloured cells with words in them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes


def heatmap(
    ax: Axes,
    grid: pd.DataFrame,
    marks: pd.DataFrame,
    label: str = "",
    *,
    colours: str = "vlag",
    limits: tuple[float, float] | None = None,
    shrink: float = 1.0,
    **style: object,
) -> None:
    """Draw a cell a number; cells without one stay empty.

    Parameters
    ----------
    grid
        The numbers.
    marks
        The words in the cells, of the same shape.
    label
        Of the colour bar; without it there is none.
    limits
        Lowest and highest value of the colours; None reaches as far to either side of 0 as the numbers do.
    style
        Further keywords of `seaborn.heatmap`.
    """
    most = float(np.nanmax(np.abs(grid.to_numpy()))) or 1.0
    low, high = limits or (-most, most)
    sns.heatmap(
        grid, annot=marks, fmt="", cmap=colours, vmin=low, vmax=high, ax=ax, annot_kws={"fontsize": 9},
        cbar=bool(label), cbar_kws={"label": label, "shrink": shrink}, **style,
    )  # fmt: skip
    ax.set(xlabel="", ylabel="")


def starred_cells(values: Iterable[float], sure: Iterable[bool], blank: str = "") -> list[str]:
    """Word differences for cells, with a star where they are told apart from 0."""
    return [f"{value:+.2f}" + ("*" if seen else blank) for value, seen in zip(values, sure, strict=True)]
