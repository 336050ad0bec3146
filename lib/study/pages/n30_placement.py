"""Draw and tell where a method's budget goes, and which methods keep the same tokens."""

from __future__ import annotations

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from lib.study.evidence import Study
from lib.study.pages.forest import Series, forest, name_lines
from lib.study.pages.looks import look
from lib.study.scenes.placement import CHANCE, FILE, QUANTITIES
from lib.study.stats import holm, mean_interval, paired_difference
from lib.study.tables import ALL
from lib.study.wording import LEVEL, listing, row_interval, starred, wide

PAPERS = ("desap", "adaptprune")  # their rows are set in bold


def draw_placement(frame: pd.DataFrame, keep: int) -> Figure:
    """Draw `placement`: a panel a quantity, a row a method.

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
    name_lines(axes[0], [look(arm).label for arm in arms])
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
    dress = {arm: Series(look(arm).colour) for arm in arms}
    forest(ax, rows.assign(filled=rows["p"] < LEVEL), arms, dress, at="arm", by="arm", markeredgewidth=1.3)
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


def rows(study: Study) -> pd.DataFrame:
    """The recorded measures of where budgets go.

    Raises
    ------
    ValueError
        When the study holds none.
    """
    name = study.measures["measure"]
    found = study.measures[name.str.startswith(("placement_", "overlap:"))]
    if found.empty:
        raise ValueError(f"{FILE} is not among the records; run this notebook with source live first")
    return found


def placement(study: Study) -> pd.DataFrame:
    """Average the recorded placements and hold each against chance on the same questions; most evidence first.

    Chance is what the grid holds of such tokens, which is what random tokens get in expectation; the likeness of kept
    tokens has no such number and is held against the random method.

    Returns
    -------
    DataFrame
        arm, label, quantity, n, estimate, low, high; `chance` (the mean held against) and `p` (of the paired difference to
        it, Holm-adjusted within a quantity), both empty in the rows of chance.
    """
    wide = rows(study).pivot(index=["question_id", "image_id"], columns="measure", values="value")
    images = wide.index.get_level_values("image_id").astype("category").codes
    found = []
    for quantity in QUANTITIES:
        stem = f"placement_{quantity}:"
        mine = wide[[name for name in wide.columns if name.startswith(stem)]]
        chance = next((mine[stem + arm] for arm in (CHANCE, "random") if stem + arm in mine), None)
        part = []
        for name, values in mine.items():
            arm = name.removeprefix(stem)
            number = mean_interval(values.to_numpy(), images, study.seed)
            row = [arm, CHANCE if arm == CHANCE else look(arm).label, quantity]
            row += [number.n, number.estimate, number.low, number.high, np.nan, np.nan]
            if chance is not None and values.name != chance.name:
                row[-2:] = (
                    chance.mean(),
                    paired_difference(values.to_numpy(), chance.to_numpy(), images, study.seed).p,
                )
            part.append(row)
        held = [row for row in part if not np.isnan(row[-1])]
        for row, p in zip(held, holm([row[-1] for row in held]), strict=True):
            row[-1] = p
        found += part
    names = ["arm", "label", "quantity", "n", "estimate", "low", "high", "chance", "p"]
    frame = pd.DataFrame(found, columns=names)
    order = frame[frame["quantity"] == "evidence"].set_index("arm")["estimate"]
    return frame.sort_values("arm", key=lambda arm: -arm.map(order), kind="stable", ignore_index=True)
