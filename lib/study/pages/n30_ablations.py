"""Notebook 30's figure and prose of the ablations: every switch of a method against its default, on the same questions."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.study.pages.forest import Series, forest, name_lines, spread
from lib.study.pages.looks import BLUE, ORANGE
from lib.study.wording import LEVEL, intervals, listing, starred, wide

REACH = 0.25  # accuracy that both panels reach to either side; what lies beyond is drawn at the edge, with its number
# Series: colour and marker, told apart by both.
_LOOKS = {
    "default": (BLUE, "o"),
    "task only": (BLUE, "o"),
    "layer 2 (default)": (BLUE, "o"),
    "layer 1": (ORANGE, "s"),
}


def title(frame: pd.DataFrame) -> str:
    """Say of one paper's switches how many move accuracy, by layer where there are two, and which moves it most."""
    sure = frame[frame["p"] < LEVEL]
    told = f"{frame['paper'].iloc[0]}: {len(sure)} of {len(frame)} changes move accuracy"
    layers = frame[frame["series"].str.startswith("layer")]
    if layers["series"].nunique() > 1:
        parts = [
            f"{(mine['p'] < LEVEL).sum()} of {len(mine)} at {str(series)[:7]}"
            for series, mine in layers.groupby("series", sort=False)
        ]
        told = f"{frame['paper'].iloc[0]}: {listing(parts)} move accuracy"
    ends = []
    for word, mine in (("loses", sure[sure["estimate"] < 0]), ("gains", sure[sure["estimate"] > 0])):
        if len(mine):
            most = mine.loc[mine["estimate"].abs().idxmax()]
            ends.append(f"{_named(most)} {word} {abs(most['estimate']):.2f}")
    return told + (f";\n{', '.join(ends)}" if ends else "")


def _named(row: pd.Series) -> str:
    return f"“{row['label']}”" + (" at layer 1" if row["series"] == "layer 1" else "")


def draw(frame: pd.DataFrame, keep: int) -> Figure:
    """Draw `lib.study.ablations.differences`, a panel a paper, a line a switch; filled where Holm's rule tells it apart from 0.

    Raises
    ------
    ValueError
        When the frame has no row.
    """
    if frame.empty:
        raise ValueError(f"frame holds no ablation run at {keep} tokens")
    papers = list(dict.fromkeys(frame["paper"]))
    lines = [_lines(frame[frame["paper"] == paper]) for paper in papers]
    figure, axes = plt.subplots(
        1, len(papers), figsize=(5.6 * len(papers), 1.6 + 0.27 * max(map(len, lines))), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax, paper, names in zip(axes[0], papers, lines, strict=True):
        mine = frame[frame["paper"] == paper]
        _panel(ax, mine, names)
        ax.set_title(title(mine))
    figure.supxlabel(
        f"accuracy at {keep} tokens: changed - default, 95 % interval; filled: told apart from 0 (Holm)",
        fontsize="medium",
    )
    return figure


def _lines(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Group and label of every line from top to bottom; a heading has an empty label."""
    found: list[tuple[str, str]] = []
    for group, mine in frame.groupby("group", sort=False):
        found.append((str(group), ""))
        found += [(str(group), label) for label in dict.fromkeys(mine["label"])]
    return found


def _panel(ax: Axes, frame: pd.DataFrame, lines: list[tuple[str, str]]) -> None:
    series = list(dict.fromkeys(frame["series"]))
    looks = list(dict.fromkeys(_LOOKS[name] for name in series))
    shifts = dict(zip(looks, spread(len(looks), 0.22), strict=True))
    dress = {name: Series(*_LOOKS[name], shifts[_LOOKS[name]]) for name in series}
    frame = frame.assign(
        line=list(zip(frame["group"], frame["label"], strict=True)), filled=frame["p"] < LEVEL
    )
    within = frame["estimate"].abs() <= REACH
    forest(ax, frame[within], lines, dress, at="line", size=5.5, markeredgewidth=1.3)
    for row in frame[~within].itertuples():
        _beyond(ax, row.estimate, lines.index(row.line), dress[row.series].colour)
    if len(looks) > 1:  # one entry a series, filled or not
        for name, (colour, marker) in zip(series, (_LOOKS[name] for name in series), strict=True):
            ax.plot([], [], marker=marker, color=colour, linestyle="none", label=name)
    ax.axvline(0, color="0.15", linewidth=1.1, zorder=1)
    name_lines(ax, [label or group for group, label in lines])
    for text, (_, label) in zip(ax.get_yticklabels(), lines, strict=True):
        text.set_fontweight("normal" if label else "bold")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
    if len(looks) > 1:
        ax.set_ylim(len(lines) + 0.7, -0.6)  # a line of its own for the legend
        ax.legend(loc="lower right", ncols=len(series), framealpha=1, edgecolor="none")
    ax.set_xlim(-REACH, REACH)
    ax.set_xticks([-0.2, -0.1, 0, 0.1, 0.2])
    sns.despine(ax=ax, left=True)


def _beyond(ax: Axes, value: float, place: float, colour: tuple[float, float, float]) -> None:
    """Write a value that lies beyond the axis beside an arrow at its edge."""
    edge = REACH if value > 0 else -REACH
    ax.annotate(
        f"{value:+.2f}", (edge, place), (0.72 * edge, place), va="center", ha="center", color=colour,
        fontweight="bold", arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.6},
    )  # fmt: skip


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """The differences as text: a row a switch, a column what it is held against; * where adjusted p < 0.05."""
    page = wide(frame, starred(frame), ["paper", "group", "label"], "series")
    return page.fillna("").rename_axis(columns="against")


def sentence(frame: pd.DataFrame) -> str:
    """Say, a series a line of a list, what helps and what hurts the method."""
    told = []
    for (paper, series), mine in frame.groupby(["paper", "series"], sort=False):
        sure = mine[mine["p"] < LEVEL].sort_values("estimate", kind="stable")
        parts = [f"{label} ({found})" for label, found in zip(sure["label"], intervals(sure), strict=True)]
        helps = [part for part, value in zip(parts, sure["estimate"], strict=True) if value > 0][::-1]
        hurts = [part for part, value in zip(parts, sure["estimate"], strict=True) if value < 0]
        sides = [
            f"{len(side)} {verb}{'s' if len(side) == 1 else ''} {what}: {'; '.join(side)}"
            for side, verb, what in ((hurts, "lose", "answers"), (helps, "win", "some"))
            if side
        ]
        if not sides:
            sides = [f"none is told apart from 0; no interval reaches beyond {_reach(mine):.3f}"]
        changes = f"{len(mine)} change{'' if len(mine) == 1 else 's'}"
        told.append(f"- {paper}, {series}: of {changes} {'. '.join(sides)}.")
    return "\n".join(["**Answer.**", "", *told]) if told else "No ablation was run at this budget."


def _reach(frame: pd.DataFrame) -> float:
    """The largest change that the intervals leave possible."""
    return float(frame[["low", "high"]].abs().to_numpy().max())
