"""Compare every method with random choice and say who leads."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lib.study.compare import alike, levels
from lib.study.looks import look
from lib.study.ranks import Ranking, groups
from lib.study.report import Study
from lib.study.rules import Clause, find
from lib.study.scenes import SUITES
from lib.study.stats import holm
from lib.study.tables import suite_weights


def against_random(study: Study, arms: Sequence[str], budgets: Sequence[int]) -> pd.DataFrame:
    """Measure each method minus random tokens at the same place, paired over questions, Holm-adjusted over all.

    Returns
    -------
    DataFrame
        arm, label, series, keep, n, estimate, low, high, p (adjusted); best at the tightest budget first.
    """
    rows = []
    for arm in arms:
        if arm == "random":
            continue
        for keep in budgets:
            chance = alike(study, "random", arm, keep)
            text = f"{arm} - {chance} @ {keep}"
            found = find(Clause(kind="order", text=text, left=arm, right=chance, budget=keep), study.evidence)
            if found.n:
                numbers = (found.n, found.estimate, found.low, found.high, found.p)
                rows.append((arm, look(arm).label, f"{keep} tokens", keep, *numbers))
    names = ["arm", "label", "series", "keep", "n", "estimate", "low", "high", "p"]
    frame = pd.DataFrame(rows, columns=names)
    frame["p"] = holm(frame["p"].astype(float).tolist())
    order = frame[frame["keep"] == min(budgets)].set_index("arm")["estimate"]
    return frame.sort_values(
        ["arm", "keep"],
        key=lambda c: -c.map(order) if c.name == "arm" else -c,
        kind="stable",
        ignore_index=True,
    )


def sentence(pairs: pd.DataFrame, keep: int) -> str:
    """Say how many methods beat random at a budget, and which lead by how much."""
    mine = pairs[pairs["keep"] == keep].sort_values("estimate", ascending=False)
    beat = mine[(mine["estimate"] > 0) & (mine["p"] < 0.05)]
    below = mine[(mine["estimate"] < 0) & (mine["p"] < 0.05)]
    best = mine.iloc[0]
    return (
        f"**Answer.** At {keep} tokens {len(beat)} of {len(mine)} methods answer more than random choice and "
        f"{len(below)} fewer (Holm-adjusted); the widest lead is {best['label']}'s: {best['estimate']:+.3f} "
        f"[{best['low']:+.3f}, {best['high']:+.3f}]."
    )


def place_of(study: Study, pairs: pd.DataFrame, arm: str, keep: int) -> str:
    """Say where one method stands: its accuracy, its difference to random choice, its place among the others."""
    mine = pairs[pairs["keep"] == keep].sort_values("estimate", ascending=False, ignore_index=True)
    row, level = mine[mine["arm"] == arm].iloc[0], levels(study, [arm], keep).iloc[0]
    sure = "" if row["p"] < 0.05 else ", which may be chance"
    return (
        f"**{row['label']}** answers {level['estimate']:.3f} [{level['low']:.3f}, {level['high']:.3f}] of the "
        f"questions at {keep} tokens; its difference to random choice is {row['estimate']:+.3f} "
        f"[{row['low']:+.3f}, {row['high']:+.3f}]{sure} (Holm-adjusted p = {row['p']:.3f}); it is number "
        f"{int(mine.index[mine['arm'] == arm][0]) + 1} of {len(mine)} by that difference. The intervals come from "
        f"{study.accuracy['image_id'].nunique()} pictures: neighbours in the order need not differ."
    )


def level_table(study: Study, arms: Sequence[str], keep: int) -> pd.DataFrame:
    """Accuracies as text of fixed width: one row an arm, one column a suite and one for their mean with interval."""
    suites = [suite for suite in SUITES if suite in set(study.table["suite"])]
    rows = {}
    for arm in arms:
        found = levels(study, [arm], keep).iloc[0]
        told = {"all suites": f"{found['estimate']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"}
        each = {suite: f"{levels(study, [arm], keep, suite)['estimate'].iloc[0]:.3f}" for suite in suites}
        rows[look(arm).label] = told | each
    return pd.DataFrame(rows).T


def table(pairs: pd.DataFrame) -> pd.DataFrame:
    """The differences as text of fixed width, one row a method and one column a budget; * where adjusted p < 0.05."""
    shown = pairs.assign(
        told=[
            f"{row.estimate:+.3f} [{row.low:+.3f}, {row.high:+.3f}]{'*' if row.p < 0.05 else ' '}"
            for row in pairs.itertuples()
        ]
    )
    wide = shown.pivot(index="label", columns="keep", values="told")
    return wide.loc[list(dict.fromkeys(pairs["label"])), sorted(wide.columns, reverse=True)]


def rank_title(found: Ranking, keep: int, tokens: int) -> str:
    """Say who ranks first and how many are not told apart from it."""
    first = next((last for start, last in groups(found.ranks, found.critical) if start == 0), 0)
    told = f"{look(found.ranks.index[0]).label} ranks first"
    return f"{keep} of {tokens} tokens: {told}, {first} not told apart from it"


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
