"""Draw the cue study: which combination answers most, and what each cue is worth."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lib.study.factorial import CUES
from lib.study.pages.forest import Series, forest, name_lines, point_intervals, spread
from lib.study.pages.heatmap import heatmap, starred_cells
from lib.study.pages.looks import BLUE, GREEN, ORANGE, PURPLE
from lib.study.tables import ALL
from lib.study.wording import row_interval, wide

# Cue: colour and marker, told apart by both.
CUE_LOOKS = dict(zip(CUES, ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D")), strict=True))


def combinations(table: pd.DataFrame, keep: int, unpruned: float, suite: str = ALL) -> Figure:
    """Draw all sixteen combinations, best first: filled dots say which cues are on, points how they answer.

    Parameters
    ----------
    table : as `lib.study.factorial.accuracy` gives it.
    keep, suite : the rows to draw.
    unpruned : accuracy of the full model, drawn as a line.
    """
    rows = table[(table["keep"] == keep) & (table["suite"] == suite)]
    rows = rows.sort_values("accuracy", ascending=False, ignore_index=True)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8.6, 5.6), width_ratios=(1, 2.4), sharey=True, layout="constrained"
    )
    for place, cue in enumerate(CUES):
        colour, _ = CUE_LOOKS[cue]
        on = rows[cue].to_numpy() == 1
        left.scatter(np.full(on.sum(), place), rows.index[on], s=70, color=colour)
        left.scatter(np.full((~on).sum(), place), rows.index[~on], s=22, facecolors="none", edgecolors="0.7")
    left.set_xticks(range(len(CUES)), CUES, rotation=35, ha="right")
    left.set(xlim=(-0.6, len(CUES) - 0.4), ylim=(len(rows) - 0.4, -0.6), title="cue on (filled) or off")
    left.set_yticks([])
    point_intervals(right, rows, rows.index, colour="0.15", marker="o", size=5, value="accuracy")
    right.axvline(unpruned, color="0.15", linewidth=1.1)
    empty = rows[rows[list(CUES)].sum(axis=1) == 0]
    right.axvline(empty["accuracy"].iloc[0], color="0.5", linewidth=1.1, linestyle=(0, (1, 2)))
    right.set(
        xlabel="accuracy (line: unpruned, dotted: random)", title=f"{keep} visual tokens kept, {suite} suites"
    )
    for ax in (left, right):
        sns.despine(ax=ax, left=True)
    return figure


def shares(effects: pd.DataFrame, suites: Sequence[str], kind: str = "shapley") -> Figure:
    """Draw each cue's share with its interval, one panel a suite, one row a budget.

    Parameters
    ----------
    effects : as `lib.study.factorial.effects` gives it.
    suites : in the order of drawing.
    """
    rows = effects[effects["kind"] == kind]
    budgets = sorted(rows["keep"].unique(), reverse=True)
    columns = 4
    lines = -(-len(suites) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(11.0, 2.5 * lines + 0.6),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    shifts = spread(len(CUES), 0.18)
    dress = {cue: Series(*CUE_LOOKS[cue], shift, cue) for cue, shift in zip(CUES, shifts, strict=True)}
    for ax, suite in zip(axes.flat, suites, strict=False):
        forest(ax, rows[rows["suite"] == suite], budgets, dress, at="keep", by="cue", size=5)
        ax.axvline(0, color="0.15", linewidth=1.1)
        ax.set_title("all suites" if suite == ALL else suite)
        name_lines(ax, [str(budget) for budget in budgets], 0.5)
        sns.despine(ax=ax)
    for ax in axes.flat[len(suites) :]:
        ax.set_visible(False)
    figure.supxlabel("gain in accuracy, averaged over all orders of adding the cues", fontsize="medium")
    figure.supylabel("visual tokens kept", fontsize="medium")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    return figure


def interactions(effects: pd.DataFrame, keep: int, suites: Sequence[str]) -> Figure:
    """Draw the pairwise interactions at one budget: rows pairs of cues, columns suites, * where the interval lies off 0."""
    rows = effects[(effects["kind"] == "interaction") & (effects["keep"] == keep)]
    clear = (rows["low"] > 0) | (rows["high"] < 0)
    cells = (rows["estimate"], starred_cells(rows["estimate"], clear))
    grid, marks = (wide(rows, part, "cue", "suite").sort_index()[list(suites)] for part in cells)
    figure, ax = plt.subplots(figsize=(8.2, 3.4), layout="constrained")
    heatmap(ax, grid, marks, "interaction")
    ax.set(
        title=f"{keep} tokens: how much more one cue gains when the other is on (*: interval without 0)",
    )
    return figure


def best_sentence(table: pd.DataFrame, keep: int) -> str:
    """Name the best combination at a budget, and how far it is above random, all suites."""
    rows = table[(table["keep"] == keep) & (table["suite"] == ALL)].sort_values("accuracy")
    best = rows.iloc[-1]
    on = [cue for cue in CUES if best[cue] == 1]
    empty = rows[rows[list(CUES)].sum(axis=1) == 0]["accuracy"].iloc[0]
    return (
        f"**Answer.** At {keep} tokens the best of the sixteen combinations is {' + '.join(on) or 'random'} with "
        f"{row_interval(best, '.3f', 'accuracy')}; random tokens give {empty:.3f}."
    )
