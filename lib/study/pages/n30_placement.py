"""Draw and tell where a method's budget goes, and which methods keep the same tokens."""

from __future__ import annotations

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.stats import spearmanr

from lib.study.evidence import Study
from lib.study.pages.forest import point_intervals
from lib.study.pages.looks import look
from lib.study.scenes.placement import CHANCE, QUANTITIES, families
from lib.study.tables import ALL
from lib.study.wording import LEVEL, listing, row_interval, starred, wide

PAPERS = ("desap", "adaptprune")  # their rows are set in bold


def draw_placement(frame: pd.DataFrame, keep: int) -> Figure:
    """Draw `lib.study.scenes.placement.placement`: a panel a quantity, a row a method.

    Dotted: chance, or random choice where there is no such number. Filled: told apart from it.
    """
    arms = [arm for arm in frame["arm"].unique() if arm != CHANCE]
    figure, axes = plt.subplots(
        1, len(QUANTITIES), figsize=(11.6, 1.7 + 0.25 * len(arms)), sharey=True, layout="constrained"
    )
    for ax, (quantity, words) in zip(axes, QUANTITIES.items(), strict=True):
        mine = frame[frame["quantity"] == quantity]
        _one_quantity(ax, mine, arms)
        ax.set_title(fill(words, 17))
    axes[0].set_yticks(range(len(arms)), [look(arm).label for arm in arms])
    axes[0].set_ylim(len(arms) - 0.4, -0.6)
    for label, arm in zip(axes[0].get_yticklabels(), arms, strict=True):
        label.set_fontweight("bold" if arm in PAPERS else "normal")
    figure.suptitle(placement_title(frame, keep), fontsize="large")
    figure.supxlabel(
        "share of the kept tokens (last panel: mean cosine), 95 % interval; filled: told apart from chance (dotted)",
        fontsize="medium",
    )
    return figure


def _one_quantity(ax: Axes, rows: pd.DataFrame, arms: list[str]) -> None:
    level = rows["chance"].dropna()
    if len(level):
        ax.axvline(level.iloc[0], color="0.3", linewidth=1.2, linestyle=(0, (1, 2)), zorder=0)
    for row in rows[rows["arm"] != CHANCE].itertuples():
        style, one = look(row.arm), rows.loc[[row.Index]]
        face = style.colour if row.p < LEVEL else "white"
        point_intervals(
            ax, one, [arms.index(row.arm)], colour=style.colour, marker="o", markerfacecolor=face,
            markeredgewidth=1.3,
        )  # fmt: skip
    ax.grid(axis="y", color="0.92", linewidth=0.8)
    ax.locator_params(axis="x", nbins=4)
    ax.margins(x=0.08)
    sns.despine(ax=ax, left=True)
    ax.tick_params(axis="y", length=0)


def _side(frame: pd.DataFrame, quantity: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the methods (no oracle, no random) above and below chance at one quantity, by distance from it."""
    mine = frame[(frame["quantity"] == quantity) & ~frame["arm"].isin([CHANCE, "oracle", "random"])]
    mine = mine[mine["p"] < LEVEL].assign(by=lambda rows: rows["estimate"] - rows["chance"])
    above = mine[mine["by"] > 0].sort_values("by", ascending=False, kind="stable")
    return above, mine[mine["by"] < 0].sort_values("by", kind="stable")


def placement_title(frame: pd.DataFrame, keep: int) -> str:
    """Say who puts most on the answer's place, and how many methods put more than chance on other items."""
    above, _ = _side(frame, "evidence")
    others, _ = _side(frame, "distractors")
    methods = _methods(frame)
    told = [f"{row.label} {row.estimate:.0%}" for row in above.head(3).itertuples()]
    chance = _chance(frame, "evidence")
    first = f"most on the answer: {', '.join(told)}" if told else "no method finds the answer"
    return (
        f"{keep} tokens, {first} (chance {chance:.0%});\n"
        f"{len(others)} of {methods} methods favour items that nobody asked about"
    )


def _methods(frame: pd.DataFrame) -> int:
    return frame.loc[~frame["arm"].isin([CHANCE, "oracle", "random"]), "arm"].nunique()


def _chance(frame: pd.DataFrame, quantity: str) -> float:
    level = frame.loc[frame["quantity"] == quantity, "chance"].dropna()
    return float(level.iloc[0]) if len(level) else np.nan


def placement_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The placements as text: a row a method, a column a quantity; * where told apart from chance."""
    page = wide(frame, starred(frame, ".2f"), "label", "quantity")
    return (
        page[[name for name in QUANTITIES if name in page]]
        .rename(columns=QUANTITIES)
        .rename_axis(index=None, columns=None)
        .fillna("")
    )


def placement_sentence(frame: pd.DataFrame, keep: int) -> str:
    """Say, quantity by quantity, which methods are told apart from chance and how far they go."""
    above, below = _side(frame, "evidence")
    methods, parts = _methods(frame), []
    if len(above):
        parts.append(f"{_most(above)} of its {keep} tokens on the boxes that answer")
    else:
        parts.append(f"No method puts more of its {keep} tokens on the boxes that answer than chance")
    parts.append(f"chance puts {_chance(frame, 'evidence'):.1%} there")
    if len(below):
        parts.append(
            f"{listing(below['label'])} {'puts' if len(below) == 1 else 'put'} fewer there than chance"
        )
    told = [f"**Answer.** {'; '.join(parts)}."]
    for quantity, words in (
        ("distractors", "on items that the question does not ask about"),
        ("border", "on the outer ring"),
        ("bottom", "in the lowest quarter"),
        ("high_norm", "on the tenth of highest norm"),
    ):
        above, below = _side(frame, quantity)
        sides = [
            f"{len(rows)} {word}" for rows, word in ((above, "put more"), (below, "put fewer")) if len(rows)
        ]
        if sides:
            furthest = max(
                (rows for rows in (above, below) if len(rows)), key=lambda rows: abs(rows["by"].iloc[0])
            )
            told.append(
                f"Of {methods} methods, {' and '.join(sides)} than chance ({_chance(frame, quantity):.1%}) {words}; "
                f"furthest from it, {_most(furthest)}."
            )
    above, below = _side(frame, "redundancy")
    ends = [
        f"{word} with {rows['label'].iloc[0]} ({rows['estimate'].iloc[0]:.2f})"
        for rows, word in ((above, "most"), (below, "least"))
        if len(rows)
    ]
    if ends:
        told.append(
            f"Kept tokens resemble each other {' and '.join(ends)}; with random choice the mean cosine to "
            f"the nearest one is {_chance(frame, 'redundancy'):.2f}."
        )
    return " ".join(told)


def _most(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return f"{first['label']} puts {row_interval(first, '.1%')}"


def worth_sentence(frame: pd.DataFrame, study: Study, keep: int) -> str:
    """Say how the methods' order by answers goes with their order by evidence and by likeness (Spearman)."""
    table = study.table[(study.table["suite"] == ALL) & (study.table["keep"] == keep)]
    accuracy = table.set_index("method")["accuracy"]
    wide = frame[frame["arm"] != "oracle"].pivot(index="arm", columns="quantity", values="estimate")
    wide = wide.loc[wide.index.intersection(accuracy.index)]
    if len(wide) < 4:
        return "Too few methods have answers to rank them by where their tokens lie."
    found = {name: spearmanr(wide[name], accuracy[wide.index])[0] for name in ("evidence", "redundancy")}
    return (
        f"Over {len(wide)} methods (without the oracle) accuracy goes with the share on the evidence by a rank correlation (Spearman) "
        f"of {found['evidence']:+.2f}, and with the likeness left among kept tokens by {found['redundancy']:+.2f}."
    )


def draw_overlaps(table: pd.DataFrame, keep: int, tokens: int) -> Figure:
    """Draw `lib.study.scenes.placement.overlaps` as a map, the share in common in each cell, a frame around each family."""
    size = len(table)
    figure, ax = plt.subplots(figsize=(3.0 + 0.4 * size, 1.8 + 0.36 * size), layout="constrained")
    marks = table.map(lambda value: f"{value:.2f}".removeprefix("0"))
    sns.heatmap(
        table, annot=marks, fmt="", cmap="Blues", vmin=0, vmax=1, ax=ax, annot_kws={"fontsize": 9}, square=True,
        mask=np.eye(size, dtype=bool), cbar_kws={"label": "share of the kept tokens in common", "shrink": 0.7},
    )  # fmt: skip
    ax.set_facecolor("0.85")  # a method with itself
    for family in families(table):
        first = list(table.index).index(family[0])
        ax.add_patch(
            Rectangle(
                (first, first),
                len(family),
                len(family),
                fill=False,
                edgecolor="0.1",
                linewidth=1.8,
                clip_on=False,
            )
        )
    ax.set_xticks(np.arange(size) + 0.5, [_short(label) for label in table.index], rotation=55, ha="right")
    ax.set_yticks(np.arange(size) + 0.5, [_short(label) for label in table.index], rotation=0)
    ax.tick_params(length=0)
    ax.set(xlabel="", ylabel="", title=overlap_title(table, keep, tokens))
    return figure


def _short(label: str) -> str:
    """The first of several methods that stand at the same places, and how many more there are."""
    first, *more = label.split(", ")
    return f"{first} (+{len(more)})" if more else first


def overlap_title(table: pd.DataFrame, keep: int, tokens: int) -> str:
    """Name the families, one a line."""
    found = families(table)
    share = "1 family shares half of its" if len(found) == 1 else f"{len(found)} families share half of their"
    told = f"{share} {keep} tokens or more (framed); chance is {keep / tokens:.0%}"
    return "\n".join([told, *(" + ".join(map(_short, family)) for family in found)])


def overlap_sentence(table: pd.DataFrame, keep: int, tokens: int) -> str:
    """Say which methods stand at the same places, which agree, and how much two methods share on average."""
    pairs = table.where(np.triu(np.ones(table.shape, bool), 1)).stack()
    (left, right), most = pairs.idxmax(), pairs.max()
    same = [listing(label.split(", ")) for label in table.index if ", " in label]
    found = [listing(map(_short, family)) for family in families(table)]
    alone = len(table) - sum(map(len, families(table)))
    return (
        "**Answer.** "
        + (f"{'; '.join(same)} stand at the same places by construction and share one row. " if same else "")
        + (f"At least half in common, on average over pairs, have {'; '.join(found)}; " if found else "")
        + f"{alone} rows belong to no such family. {_short(left)} and {_short(right)} are nearest with {most:.0%}; two methods "
        f"share {pairs.mean():.0%} on average, where two random choices would share {keep / tokens:.0%}."
    )
