"""Draw points with their intervals, one line each."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.study.pages.looks import BLUE, GREEN, GREY, LOOKS, ORANGE, PURPLE, SKY, axes_of, look, needs

# Series without a method's look: colour and marker, told apart by both.
SERIES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D"), (SKY, "v"), (GREY, "P"))


def point_intervals(
    ax: Axes,
    rows: pd.DataFrame,
    places: Sequence[float],
    *,
    colour: tuple[float, float, float] | str,
    marker: str,
    size: float = 6.0,
    value: str = "estimate",
    **style: object,
) -> None:
    """Draw each row's value with its interval as a point on a line of its own.

    Parameters
    ----------
    rows
        Columns `value`, low and high.
    places
        Height of each row's line.
    size
        Of the marker in points; caps are half as wide, at most 3.
    style
        Further keywords of `Axes.errorbar`: label, markerfacecolor ...
    """
    needs(rows, value, "low", "high")
    errors = np.abs(rows[["low", "high"]].to_numpy().T - rows[value].to_numpy())
    ax.errorbar(
        rows[value],
        places,
        xerr=errors,
        linestyle="none",
        marker=marker,
        color=colour,
        markersize=size,
        **({"capsize": min(size / 2, 3)} | style),
    )


class Series(NamedTuple):
    """How rows that belong together are drawn: `shift` lines below their own, `label` in the legend."""

    colour: tuple[float, float, float] | str
    marker: str = "o"
    shift: float = 0.0
    label: str | None = None


def forest(
    ax: Axes,
    frame: pd.DataFrame,
    lines: Sequence[Hashable],
    series: Mapping[str, Series],
    *,
    at: str = "label",
    by: str = "series",
    **style: object,
) -> None:
    """Draw each row's value with its interval as a point on its line, series by series.

    Parameters
    ----------
    frame
        Columns `at`, `by`, and those that `point_intervals` reads; where there is a column filled, rows without it are
        drawn hollow.
    lines
        Values of `at` from top to bottom.
    series
        Values of `by`, in the order of drawing and of the legend.
    style
        Further keywords of `point_intervals`.
    """
    needs(frame, at, by)
    places = {line: place for place, line in enumerate(lines)}
    for name, look_of in series.items():
        mine = frame[frame[by] == name]
        for filled, part in mine.groupby(mine["filled"]) if "filled" in mine else [(True, mine)]:
            face = {} if filled else {"markerfacecolor": "white"}
            point_intervals(
                ax, part, part[at].map(places) + look_of.shift, colour=look_of.colour, marker=look_of.marker,
                label=look_of.label, **face, **style,
            )  # fmt: skip


def name_lines(ax: Axes, texts: Sequence[str], room: float = 0.6) -> None:
    """Write the lines' names at the axis, the first on top, with `room` lines above and below."""
    ax.set_yticks(range(len(texts)), texts)
    ax.set_ylim(len(texts) - 1 + room, -room)


def spread(count: int, step: float) -> list[float]:
    """Shifts that set `count` series of a line apart, `step` lines between neighbours."""
    return [step * (place - (count - 1) / 2) for place in range(count)]


def ablation_bars(frame: pd.DataFrame, xlabel: str = "accuracy", ax: Axes | None = None) -> Axes:
    """Draw one bar a row with its interval, in the order given.

    Parameters
    ----------
    frame
        Columns arm (a label for `look`), estimate, low, high; optional label (text at the axis) and reference
        (the unpruned level or 0, drawn as a line).
    """
    needs(frame, "arm", "estimate", "low", "high")
    ax = axes_of(ax, (6.4, 0.9 + 0.42 * len(frame)))
    labels = frame["label"] if "label" in frame else frame["arm"].map(lambda arm: look(arm).label)
    places = np.arange(len(frame))
    sns.barplot(
        x=frame["estimate"].to_numpy(),
        y=places,
        orient="h",
        hue=places,
        palette=[look(arm).colour for arm in frame["arm"]],
        legend=False,
        errorbar=None,
        saturation=1,
        alpha=0.75,
        width=0.7,
        ax=ax,
    )
    errors = np.abs(frame[["low", "high"]].to_numpy().T - frame["estimate"].to_numpy())
    ax.errorbar(frame["estimate"], places, xerr=errors, fmt="none", ecolor="0.15", capsize=3, linewidth=1.2)
    if "reference" in frame:
        ax.axvline(frame["reference"].iloc[0], color="0.15", linewidth=1.1)
    ax.set_yticks(places, labels)
    ax.set(xlabel=f"{xlabel}, 95 % interval over images", ylabel="")
    sns.despine(ax=ax)
    return ax


def dots(frame: pd.DataFrame, xlabel: str, title: str = "") -> Figure:
    """Draw differences with intervals as dots: one line a label, one colour and marker a series (methods have theirs).

    Parameters
    ----------
    frame
        Columns label, series, estimate, low, high, in the order of drawing. A single series with a column arm is
        drawn without a legend, each arm in its own look.
    """
    names = list(dict.fromkeys(frame["label"]))
    figure, ax = plt.subplots(figsize=(7.4, 1.2 + 0.5 * len(names)), layout="constrained")
    by = "arm" if frame["series"].nunique() == 1 and "arm" in frame else "series"
    forest(ax, frame, names, _dressed(frame, by), by=by, size=8 if by == "arm" else 6)
    ax.axvline(0, color="0.15", linewidth=1.1)
    name_lines(ax, names, 0.55)
    ax.set(xlabel=f"{xlabel}, 95 % interval over images", title=title)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    sns.despine(ax=ax)
    return figure


def _dressed(frame: pd.DataFrame, by: str) -> dict[str, Series]:
    """Arms in their own looks, or series named after methods in theirs, or in the looks that series have in turn."""
    names = list(dict.fromkeys(frame[by]))
    if by == "arm":
        return {arm: Series(look(arm).colour, look(arm).marker) for arm in names}
    methods = {one.label: (one.colour, one.marker) for one in LOOKS.values()}
    styles = [methods[name] for name in names] if set(names) <= set(methods) else SERIES
    shifts = spread(len(names), 0.2)
    return {name: Series(*styles[i % len(styles)], shifts[i], name) for i, name in enumerate(names)}


def means(ax: Axes, frame: pd.DataFrame, label: str, xlabel: str, reference: float | None = None) -> Axes:
    """One dot a row with its interval, in the order given; columns `label`, mean, low, high."""
    needs(frame, label)
    style = {"colour": "C0", "marker": "o", "size": 5, "ecolor": "0.3", "capsize": 3}
    point_intervals(ax, frame, range(len(frame)), value="mean", **style)
    if reference is not None:
        ax.axvline(reference, color="0.4", linestyle="--", linewidth=1.1)
    name_lines(ax, frame[label])
    ax.set(xlabel=xlabel)
    sns.despine(ax=ax)
    return ax
