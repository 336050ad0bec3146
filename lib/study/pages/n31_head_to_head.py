"""Compare every method with random choice and say who leads."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lib.study.arms import contender
from lib.study.compare import alike, levels
from lib.study.cost import visual_tokens
from lib.study.evidence import Study
from lib.study.pages.heatmap import heatmap, starred_cells
from lib.study.pages.looks import look
from lib.study.ranks import Ranking, groups
from lib.study.rules import Clause, find
from lib.study.scenes.evaluate import decoder_layers
from lib.study.scenes.layout import SUITES
from lib.study.stats import holm
from lib.study.tables import ALL, suite_weights
from lib.study.wording import LEVEL, listing, row_interval, starred, wide


def against_random(
    study: Study, arms: Sequence[str], budgets: Sequence[int], suites: Sequence[str] = (ALL,)
) -> pd.DataFrame:
    """Measure each method minus random tokens at the same place, paired over questions, Holm-adjusted.

    Families: all methods and budgets over all suites; and, a budget at a time, all methods and single suites. Larger ones
    would ask for p values below what the resampling can show.

    Returns
    -------
    DataFrame
        arm, label, suite, series, keep, n, estimate, low, high, p (adjusted); best at the tightest budget and over the
        first of `suites` first.
    """
    rows = []
    for arm, keep in product(arms, budgets):
        if arm == "random":
            continue
        chance = alike(study, "random", arm, keep)
        for suite in suites:
            clause = Clause(
                kind="order", text=f"{arm} - {chance}", left=arm, right=chance, budget=keep, suites=(suite,)
            )
            found = find(clause, study.evidence)
            if found.n:
                numbers = (found.n, found.estimate, found.low, found.high, found.p)
                rows.append((arm, look(arm).label, suite, f"{keep} tokens", keep, *numbers))
    names = ["arm", "label", "suite", "series", "keep", "n", "estimate", "low", "high", "p"]
    frame = pd.DataFrame(rows, columns=names)
    family = frame["keep"].where(frame["suite"] != ALL, 0)
    frame["p"] = frame["p"].astype(float).groupby(family).transform(lambda p: holm(p.tolist()))
    tight = frame[(frame["keep"] == min(budgets)) & (frame["suite"] == suites[0])]
    order = tight.set_index("arm")["estimate"]
    return frame.sort_values(
        ["arm", "keep"],
        key=lambda c: -c.map(order) if c.name == "arm" else -c,
        kind="stable",
        ignore_index=True,
    )


def draw_suites(pairs: pd.DataFrame, keep: int) -> Figure:
    """Draw the differences of one budget as a map, a row a method and a column a suite; * where adjusted p < 0.05."""
    rows = pairs[pairs["keep"] == keep]
    cells = (rows["estimate"], starred_cells(rows["estimate"], rows["p"] < LEVEL, blank=" "))
    grid, marks = (wide(rows, part, "label", "suite") for part in cells)
    figure, ax = plt.subplots(figsize=(7.6, 1.2 + 0.33 * len(grid)), layout="constrained")
    heatmap(ax, grid, marks, "accuracy: method - random", colours="vlag_r")
    spread = grid.std().drop(ALL, errors="ignore")
    ax.set(
        title=f"{keep} tokens: methods differ most on {spread.idxmax()}, least on {spread.idxmin()}",
    )
    ax.tick_params(axis="y", rotation=0)
    return figure


def sentence(pairs: pd.DataFrame, keep: int) -> str:
    """Say how many methods beat random at a budget, and which lead by how much."""
    mine = pairs[(pairs["keep"] == keep) & (pairs["suite"] == ALL)].sort_values("estimate", ascending=False)
    beat = mine[(mine["estimate"] > 0) & (mine["p"] < 0.05)]
    below = mine[(mine["estimate"] < 0) & (mine["p"] < 0.05)]
    best = mine.iloc[0]
    return (
        f"**Answer.** At {keep} tokens {len(beat)} of {len(mine)} methods answer more than random choice and "
        f"{len(below)} fewer (Holm-adjusted); the widest lead is {best['label']}'s: {row_interval(best)}."
    )


def changes(study: Study, pairs: pd.DataFrame, keep: int, superseded: pd.DataFrame) -> str:
    """Say what replacing records of methods that did not do what their releases do has moved at one budget.

    Parameters
    ----------
    pairs : of `against_random`.
    superseded : `data/published/superseded.csv`: method, keep, accuracy (over all suites) and commit of the old records.

    Returns
    -------
    str
        Accuracy and place of every such method before and now, and which changed sides of random tokens at the same place.
    """
    mine = pairs[(pairs["keep"] == keep) & (pairs["suite"] == ALL)].set_index("arm")
    now = pd.Series({arm: levels(study, [arm], keep)["estimate"].iloc[0] for arm in mine.index})
    before = superseded[superseded["keep"] == keep].set_index("method")["accuracy"]
    known = [arm for arm in now.index if "/" not in arm]  # variants were not there before
    old = now[known].copy()
    old[before.index] = before
    places = [(-level).rank(method="min").astype(int) for level in (old, now[known])]
    chance = now - mine["estimate"]
    moved, crossed = [], []
    for arm in (now - old).loc[before.index].abs().sort_values(ascending=False).index:
        was, stands = (place[arm] for place in places)
        label = look(arm).label
        moved.append(f"{label} {old[arm]:.3f} to {now[arm]:.3f} (place {was} to {stands})")
        sides = [level[arm] > chance[arm] for level in (old, now)]
        if sides[0] != sides[1]:
            crossed.append(f"{label} is now {'above' if sides[1] else 'below'}")
    told = f"On the other side of random tokens than before: {listing(crossed)}." if crossed else ""
    return (
        f"**What changed.** {len(before)} methods did not do what their releases do; their records up to commit "
        f"{superseded['commit'].iloc[0]} were wrong. Accuracy at {keep} tokens, and place among {len(known)} methods: "
        f"{listing(moved)}. {told or 'None changed sides of random tokens.'}"
    )


def place_of(study: Study, pairs: pd.DataFrame, arm: str, keep: int) -> str:
    """Say where one method stands: its accuracy, its difference to random choice, its place among the others."""
    mine = pairs[pairs["keep"] == keep].sort_values("estimate", ascending=False, ignore_index=True)
    row, level = mine[mine["arm"] == arm].iloc[0], levels(study, [arm], keep).iloc[0]
    sure = "" if row["p"] < 0.05 else ", which may be chance"
    return (
        f"**{row['label']}** answers {row_interval(level, '.3f')} of the questions at {keep} tokens; its "
        f"difference to random choice is {row_interval(row)}{sure} (Holm-adjusted p = {row['p']:.3f}); it is number "
        f"{int(mine.index[mine['arm'] == arm][0]) + 1} of {len(mine)} by that difference. The intervals come from "
        f"{study.accuracy['image_id'].nunique()} pictures: neighbours in the order need not differ."
    )


def level_table(study: Study, arms: Sequence[str], keep: int) -> pd.DataFrame:
    """Accuracies as text of fixed width: one row an arm, one column a suite and one for their mean with interval."""
    suites = [suite for suite in SUITES if suite in set(study.table["suite"])]
    rows = {}
    for arm in arms:
        found = levels(study, [arm], keep).iloc[0]
        told = {"all suites": row_interval(found, ".3f")}
        each = {suite: f"{levels(study, [arm], keep, suite)['estimate'].iloc[0]:.3f}" for suite in suites}
        rows[look(arm).label] = told | each
    return pd.DataFrame(rows).T


def table(pairs: pd.DataFrame) -> pd.DataFrame:
    """The differences as text of fixed width, one row a method and one column a budget; * where adjusted p < 0.05."""
    pairs = pairs[pairs["suite"] == ALL]
    return wide(pairs, starred(pairs, blank=" "), "label", "keep").sort_index(axis="columns", ascending=False)


def rank_title(found: Ranking, keep: int, tokens: int) -> str:
    """Say who ranks first and how many are not told apart from it."""
    first = next((last for start, last in groups(found.ranks, found.critical) if start == 0), 0)
    told = f"{look(found.ranks.index[0]).label} ranks first"
    return f"{keep} of {tokens} tokens: {told}, {first} not told apart from it"


def costs(arms: Sequence[str], keep: int, tokens: int, layers: int = 0) -> pd.DataFrame:
    """List the visual tokens in each decoder layer (0: as many as the embedded model's), their mean, and it over `tokens`."""
    layers = layers or decoder_layers()
    rows = {look(arm).label: visual_tokens(contender(arm, keep), tokens, layers) for arm in arms}
    frame = pd.DataFrame(rows, index=[f"layer {number}" for number in range(layers)]).T
    mean = frame.mean(axis=1)
    return frame.assign(mean=mean.round(1), share=(mean / tokens).round(3)).sort_values("mean", kind="stable")


def seed_spread(study: Study, budgets: Sequence[int]) -> pd.DataFrame:
    """Accuracy of random choice over its seeds: seeds, mean, standard deviation, least, most; suites weigh the same."""
    rows = study.accuracy[study.accuracy["arm"] == "random"]
    found = []
    for keep in budgets:
        mine = rows[rows["keep"] == keep]
        each = mine.groupby("seed").apply(_mean, include_groups=False)
        found.append((keep, len(each), each.mean(), each.std(), each.min(), each.max()))
    names = ["keep", "seeds", "mean", "standard deviation", "least", "most"]
    return pd.DataFrame(found, columns=names).round(4)


def _mean(rows: pd.DataFrame) -> float:
    weights = suite_weights(rows["suite"])
    return float((rows["correct"] * weights).sum() / weights.sum())


def draw_ranks(result: Ranking, title: str) -> Figure:
    """Draw mean ranks as dots, best on top; bars beside them join methods that are not told apart."""
    names = list(result.ranks.index)
    figure, ax = plt.subplots(figsize=(7.6, 0.9 + 0.32 * len(names)), layout="constrained")
    for place, (name, value) in enumerate(result.ranks.items()):
        style = look(name)
        ax.plot(value, place, marker=style.marker, color=style.colour, markersize=8, linestyle="none")
    most = float(result.ranks.max())
    for number, (first, last) in enumerate(groups(result.ranks, result.critical)):
        ax.plot([most + 0.5 + 0.35 * number] * 2, [first - 0.2, last + 0.2], color="0.35", linewidth=3)
    ax.set_yticks(range(len(names)), [look(name).label for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set(xlabel="mean rank over pictures (1 is best); a bar joins what is not told apart", title=title)
    sns.despine(ax=ax)
    return figure
