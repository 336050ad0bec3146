"""Figures of notebook 40: what is computed where, and what is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.study.costs.points import WHOLE
from lib.study.pages.looks import BLUE, BROWN, GREEN, GREY, ORANGE, PINK, PURPLE, SKY, YELLOW, look
from lib.study.pages.n40_operations import label, met_at

# Parts in the order in which they run; hatches tell neighbours apart without colour.
PARTS = {
    "tower and projector": (GREY, ""),
    "cues and choice": (ORANGE, ""),
    "vision tower": (GREY, ""),
    "projector": (BROWN, "///"),
    "text tower": (YELLOW, ""),
    "vision cues": (GREEN, "\\\\\\"),
    "decoder cues": (SKY, "xx"),
    "selection": (ORANGE, ""),
    "decoder": (BLUE, ""),
    "prefill": (BLUE, ""),
    "language head": (PINK, ""),
}
COUNTINGS = ((BLUE, ""), (ORANGE, "///"), (GREEN, ".."))
LINES = (
    (BLUE, "o", "-"),
    (ORANGE, "s", "--"),
    (GREEN, "^", "-."),
    (PURPLE, "D", ":"),
    (GREY, "v", "-"),
    (SKY, "P", "--"),
)


def stack(ax: Axes, wide: pd.DataFrame) -> list[str]:
    """Draw rows as stacked horizontal bars, first row on top; the parts that are drawn."""
    left = np.zeros(len(wide))
    drawn = [part for part in PARTS if part in wide and wide[part].fillna(0).sum() > 0.001 * wide.sum().sum()]
    for part in drawn:
        colour, hatch = PARTS[part]
        values = wide[part].fillna(0).to_numpy()
        ax.barh(
            wide.index,
            values,
            left=left,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.4,
            label=part,
            height=0.72,
        )
        left += values
    ax.invert_yaxis()
    sns.despine(ax=ax)
    return drawn


def part_bars(table: pd.DataFrame) -> Figure:
    """Draw `lib.study.pages.n40_operations.by_part`: operations up to the first token, small parts taken together."""
    groups = {
        "tower and projector": ["vision tower", "projector"],
        "cues and choice": ["text tower", "vision cues", "decoder cues", "selection"],
        "decoder": ["decoder", "language head"],
    }
    wide = pd.DataFrame({name: table[columns].sum(axis=1) for name, columns in groups.items()})
    figure, ax = plt.subplots(figsize=(7.6, 1.3 + 0.36 * len(table)), layout="constrained")
    stack(ax, wide)
    for place, (total, times) in enumerate(
        zip(table["all parts"], table["times less, all parts"], strict=True)
    ):
        more = f"  ({times:.1f}× less)" if times > 1.001 else ""
        ax.text(total + 0.08, place, f"{total:.2f}{more}", va="center")
    full, short = table.iloc[0], table.loc[label("desap")]
    ax.set(
        xlabel="TFLOP to the first token, one image (lower is better)",
        xlim=(0, 1.22 * table["all parts"].max()),
        title=f"DeSAP's decoder: {full['decoder']:.2f} to {short['decoder']:.2f} TFLOP; "
        f"tower and projector stay {full['vision tower'] + full['projector']:.2f}",
    )
    ax.legend(loc="lower right", frameon=False)
    return figure


def counting_bars(table: pd.DataFrame, printed: float) -> Figure:
    """Draw `lib.study.pages.n40_operations.countings`: how many times less, by budget and counting, beside the `printed` factor."""
    figure, ax = plt.subplots(figsize=(7.6, 3.8), layout="constrained")
    shown = table[table["kept"] < table["kept"].max()]
    budgets = sorted(set(shown["kept"]), reverse=True)
    ways = list(dict.fromkeys(shown["counting"]))
    for number, (way, (colour, hatch)) in enumerate(zip(ways, COUNTINGS, strict=True)):
        mine = shown[shown["counting"] == way].set_index("kept").loc[budgets, "times"]
        places = np.arange(len(budgets)) + 0.27 * (number - 1)
        ax.bar(places, mine, 0.25, color=colour, hatch=hatch, edgecolor="white", label=way)
        for place, times in zip(places, mine, strict=True):
            ax.text(place, times + 0.12, f"{times:.1f}×", ha="center", va="bottom")
    ax.axhline(printed, color="0.15", linestyle="--", linewidth=1.3)
    ax.text(-0.45, printed + 0.12, f"printed: {printed:.0f}×", va="bottom")
    ax.set_xticks(range(len(budgets)), [f"{kept} kept" for kept in budgets])
    most = shown.loc[shown["times"].idxmax()]
    least = shown[shown["kept"] == most["kept"]]["times"].min()
    ax.set(
        ylabel="times fewer operations in the prefill",
        ylim=(0, 1.18 * printed),
        title=f"The same {most['kept']} tokens: {most['times']:.1f}, or {least:.1f} times fewer, by what is counted",
    )
    ax.legend(loc="upper left", bbox_to_anchor=(0, 0.86), frameon=False)
    sns.despine(ax=ax)
    return figure


def text_lines(curve: pd.DataFrame, printed: Mapping[str, float]) -> Figure:
    """Draw the saving against the text tokens counted, with the `printed` saving of each architecture as a level."""
    figure, ax = plt.subplots(figsize=(7.6, 3.8), layout="constrained")
    told = []
    for name, (colour, _, dash) in zip(printed, LINES, strict=False):
        mine, level, short = curve[curve["sizes"] == name], 100 * printed[name], name.split(" (")[0]
        ax.plot(mine["text"], 100 * mine["saving"], color=colour, linestyle=dash, linewidth=2, label=short)
        ax.axhline(level, color=colour, linewidth=1.2, linestyle=(0, (1, 2)))
        ax.text(
            curve["text"].max(),
            level - 0.3,
            f"printed for {short}: {level:.0f} %",
            color=colour,
            ha="right",
            va="top",
        )
        met = met_at(curve, printed)[name]
        told.append(
            f"{level:.0f} % " + ("at no number of text tokens" if met is None else f"up to {met} text tokens")
        )
    ax.set(
        xlabel="text tokens counted beside the visual ones",
        ylabel="prefill saved, %",
        title=f"Printed savings are reached: {', '.join(told)}",
        xlim=(0, curve["text"].max()),
    )
    ax.legend(loc="lower left", frameon=False)
    sns.despine(ax=ax)
    return figure


def layer_lines(frame: pd.DataFrame, keep: int, names: Sequence[str]) -> Figure:
    """Draw visual tokens in each decoder layer, a step line a method; the mean stands beside the name."""
    figure, ax = plt.subplots(figsize=(7.6, 3.9), layout="constrained")
    total = frame["tokens"].max()
    means = {}
    for name in names:
        mine, style = frame[frame["method"] == name], look(name)
        means[name] = mine["tokens"].mean()
        edges = np.append(mine["layer"], mine["layer"].max() + 1)
        ax.step(
            edges,
            np.append(mine["tokens"], mine["tokens"].iloc[-1]),
            where="post",
            color=style.colour,
            linestyle="-" if style.dashes == "" else (0, tuple(style.dashes)),
            linewidth=4.6 - 0.8 * names.index(name),  # lines that lie on each other stay visible
            label=f"{style.label}: mean {means[name]:.0f}",
        )
    most = max((name for name in names if name != WHOLE), key=lambda name: means[name])
    ax.set_yscale("log", base=2)
    ticks = [keep, 2 * keep, 4 * keep, total]
    ax.set_yticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.set(
        xlabel="decoder layer",
        ylabel="visual tokens (log scale)",
        xlim=(0, frame["layer"].max() + 1),
        title=f"Pruning ends with {keep} tokens; {look(most).label}'s layers hold {means[most] / keep:.1f} times that on average",
    )
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    sns.despine(ax=ax)
    return figure
