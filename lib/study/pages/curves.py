"""Draw what changes along an axis: accuracy against kept tokens, and any line with its interval as a band."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.study.pages.looks import LOOKS, axes_of, look, needs
from lib.study.records import method_of
from lib.study.scenes.layout import SUITES
from lib.study.tables import ALL

CURVES = ("oracle", "desap", "adaptprune", "cls", "fastv", "uniform", "random")


def _curve(ax: Axes, rows: pd.DataFrame, arm: str) -> None:
    style = look(arm)
    errors = np.abs(rows[["low", "high"]].to_numpy().T - rows["accuracy"].to_numpy())
    ax.errorbar(
        rows["keep"],
        rows["accuracy"],
        yerr=errors,
        color=style.colour,
        fmt="none",
        capsize=2.5,
        linewidth=1.1,
    )
    line = {"linestyle": "-"} if style.dashes == "" else {"dashes": style.dashes}
    ax.plot(
        rows["keep"],
        rows["accuracy"],
        color=style.colour,
        marker=style.marker,
        markersize=6,
        linewidth=1.5,
        label=style.label,
        **line,
    )


def _level(ax: Axes, row: pd.Series, arm: str) -> None:
    """Draw an arm without a budget as a line over the whole width, its interval as a band."""
    style = look(arm)
    ax.axhspan(row["low"], row["high"], color=style.colour, alpha=0.10, linewidth=0)
    dashes = "-" if arm == "none" else (0, (1, 2))
    ax.axhline(row["accuracy"], color=style.colour, linestyle=dashes, linewidth=1.3, label=style.label)


def _published(ax: Axes, published: pd.DataFrame) -> None:
    needs(published, "method", "keep", "accuracy")
    hollow = {"facecolors": "none", "edgecolors": "0.5", "s": 45}
    for method, points in published.groupby("method"):
        marker = look(method).marker if method in LOOKS else "o"
        ax.scatter(points["keep"], points["accuracy"], marker=marker, **hollow)
    ax.scatter([], [], marker="o", label="published, other model", **hollow)


def _budget_ticks(ax: Axes, budgets: pd.Series) -> None:
    if len(budgets):
        ticks = sorted(set(budgets))
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks, [str(budget) for budget in ticks])
        ax.minorticks_off()


def accuracy_curve(
    table: pd.DataFrame,
    suite: str = "all",
    arms: Sequence[str] | None = None,
    published: pd.DataFrame | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw accuracy against kept tokens, one line an arm, with intervals.

    Parameters
    ----------
    table
        Rows of `lib.study.tables.accuracy_table` for one model.
    suite
        Which suite's rows.
    arms
        Arm labels to draw; None draws all arms without a changed field. The unpruned level, the level without
        any visual token and random tokens are drawn whenever the table has them.
    published
        Columns method, keep, accuracy: the papers' values in the unit of the table, as hollow grey markers.
    ax
        Where to draw; None makes a figure.
    """
    needs(table, "method", "keep", "suite", "accuracy", "low", "high")
    rows = table[table["suite"] == suite]
    if rows.empty:
        raise ValueError(
            f"table has no rows of suite {suite!r}; known: {', '.join(sorted(set(table['suite'])))}"
        )
    # legends list methods in one order, whatever the order of rows; those without a fixed look come last
    order = list(LOOKS)

    def place(arm: str) -> tuple[int, str]:
        name = method_of(arm)
        return (order.index(name) if name in order else len(order), arm)

    present = sorted(set(rows["method"]), key=place)
    wanted = (
        [arm for arm in present if "/" not in arm] if arms is None else [*arms, "none", "blind", "random"]
    )
    ax = axes_of(ax)
    for arm in [arm for arm in dict.fromkeys(wanted) if arm in present]:
        mine = rows[rows["method"] == arm].sort_values("keep")
        if arm in ("none", "blind"):
            _level(ax, mine.iloc[0], arm)
        else:
            _curve(ax, mine, arm)
    if published is not None:
        _published(ax, published)
    _budget_ticks(ax, rows.loc[~rows["method"].isin(["none", "blind"]), "keep"])
    ax.set(xlabel="visual tokens kept (log scale)", ylabel="accuracy (higher is better)")
    ax.set_title("all suites, equal weight" if suite == "all" else f"suite: {suite}")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    sns.despine(ax=ax)
    return ax


def _drawn(table: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    return table[table["method"].isin([*arms, "none", "blind"])]


def _spread(table: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """Move each arm a little along the budget axis, so that intervals do not lie on each other."""
    present = [arm for arm in arms if arm in set(table["method"])]
    place = {arm: index - (len(present) - 1) / 2 for index, arm in enumerate(present)}
    factor = 2.0 ** (0.04 * table["method"].map(place).fillna(0.0))
    return table.assign(keep=table["keep"] * factor)


def _true_ticks(ax: Axes, budgets: Sequence[int]) -> None:
    ax.set_xticks(budgets, [str(budget) for budget in budgets])


def accuracy_figure(
    table: pd.DataFrame,
    tokens: int,
    arms: Sequence[str] = CURVES,
    published: pd.DataFrame | None = None,
    ylabel: str = "accuracy (higher is better)",
    title: str = "",
) -> Figure:
    """Draw accuracy, or a ratio in its place, against kept tokens for several methods."""
    figure, ax = plt.subplots(figsize=(7.6, 4.4), layout="constrained")
    rows = _drawn(table[table["suite"] == ALL], arms)
    accuracy_curve(_spread(rows, arms), arms=arms, published=published, ax=ax)
    budgets = sorted({int(keep) for keep in rows.loc[~rows["method"].isin(["none", "blind"]), "keep"]})
    _true_ticks(ax, budgets)
    ax.set(xlabel=f"visual tokens kept of {tokens} (log scale)", ylabel=ylabel, title=title)
    return figure


def suite_curves(
    table: pd.DataFrame, tokens: int, arms: Sequence[str] = ("desap", "adaptprune", "cls", "fastv")
) -> Figure:
    """Draw one small panel a suite, all with the same axes."""
    suites = [suite for suite in SUITES if suite in set(table["suite"])]
    columns = min(3, len(suites))
    lines = -(-len(suites) // columns)
    size = (3.1 * columns, 2.7 * lines + 0.5)
    figure, axes = plt.subplots(
        lines, columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    shown = _spread(_drawn(table, [*arms, "random"]), [*arms, "random"])
    drawn = table.loc[table["method"].isin(arms), "keep"]
    for ax, suite in zip(axes.flat, suites, strict=False):
        accuracy_curve(shown, suite=suite, arms=arms, ax=ax)
        ax.get_legend().remove()
        ax.set(xlabel="", ylabel="", title=suite, ylim=(-0.03, 1.03))
        _true_ticks(ax, sorted({int(keep) for keep in drawn}))
    for ax in axes.flat[len(suites) :]:
        ax.remove()
    figure.supxlabel(f"visual tokens kept of {tokens} (log scale)", fontsize="medium")
    figure.supylabel("accuracy", fontsize="medium")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    return figure


def band(
    ax: Axes, frame: pd.DataFrame, x: str, label: str, colour: str, marker: str = "o", line: str = "-"
) -> Axes:
    """A line over `x` with its interval as a band; columns `x`, mean, low, high."""
    ax.plot(frame[x], frame["mean"], line, marker=marker, markersize=4, color=colour, label=label)
    ax.fill_between(frame[x], frame["low"], frame["high"], color=colour, alpha=0.2, linewidth=0)
    sns.despine(ax=ax)
    return ax
