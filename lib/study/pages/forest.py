"""Draw points with their intervals, one line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
        capsize=min(size / 2, 3),
        markersize=size,
        **style,
    )


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
    for mine, label, (colour, marker), shift in _dressed(frame):
        places, size = mine["label"].map(names.index) + shift, 6 if label else 8
        point_intervals(ax, mine, places, colour=colour, marker=marker, size=size, label=label or None)
    ax.axvline(0, color="0.15", linewidth=1.1)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.45, -0.55)
    ax.set(xlabel=f"{xlabel}, 95 % interval over images", title=title)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    sns.despine(ax=ax)
    return figure


def _dressed(frame: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, str, tuple, float]]:
    """Rows that are drawn alike, the name that a legend gives them, their colour and marker, and how far off the line."""
    series = list(dict.fromkeys(frame["series"]))
    if len(series) == 1 and "arm" in frame:
        for arm, mine in frame.groupby("arm", sort=False):
            yield mine, "", (look(arm).colour, look(arm).marker), 0.0
        return
    methods = {one.label: (one.colour, one.marker) for one in LOOKS.values()}
    styles = [methods[name] for name in series] if set(series) <= set(methods) else SERIES
    for index, name in enumerate(series):
        shift = 0.2 * (index - (len(series) - 1) / 2)
        yield frame[frame["series"] == name], name, styles[index % len(styles)], shift


def means(ax: Axes, frame: pd.DataFrame, label: str, xlabel: str, reference: float | None = None) -> Axes:
    """One dot a row with its interval, in the order given; columns `label`, mean, low, high."""
    missing = {label, "mean", "low", "high"} - set(frame.columns)
    if missing:
        raise ValueError(f"frame lacks the columns {sorted(missing)}")
    places = np.arange(len(frame))[::-1]
    errors = np.abs(frame[["low", "high"]].to_numpy().T - frame["mean"].to_numpy())
    ax.errorbar(
        frame["mean"], places, xerr=errors, fmt="o", color="C0", ecolor="0.3", capsize=3, markersize=5
    )
    if reference is not None:
        ax.axvline(reference, color="0.4", linestyle="--", linewidth=1.1)
    ax.set_yticks(places, frame[label])
    ax.set(xlabel=xlabel, ylim=(-0.6, len(frame) - 0.4))
    sns.despine(ax=ax)
    return ax
