"""Tokens kept for one question, asked another about the same picture: what that costs each method."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.study.arms import DEAF, Arm
from lib.study.compare import levels, same_answers
from lib.study.evidence import Study
from lib.study.pages.forest import Series, forest, name_lines
from lib.study.pages.heatmap import heatmap
from lib.study.pages.looks import look
from lib.study.records import TOLD
from lib.study.rules import Clause, find
from lib.study.scenes.layout import SUITES
from lib.study.scenes.split import earlier_place
from lib.study.stats import holm
from lib.study.wording import listing, row_interval, starred

EARLIER = TOLD["earlier"]
_DEAF = tuple(name for name, _ in DEAF)


def losses(study: Study, arms: Sequence[Arm]) -> pd.DataFrame:
    """Measure each method's tokens chosen for the question asked against those chosen for an earlier one.

    Returns
    -------
    DataFrame
        arm, label, series, keep, hears (whether the method hears the question), measured (false where it answers the
        same by construction and was not asked twice), n; own and earlier, the two accuracies with their `_low` and
        `_high`; estimate, low, high (own - earlier, paired, clustered by image) and p (Holm-adjusted over all
        measured rows). The dearest at the tightest budget first, methods that hear nothing last.
    """
    told = {arm.label for arm in arms}
    frame = pd.DataFrame(
        [
            _loss(study, arm.label, arm.method.keep, arm.label + EARLIER in told)
            for arm in arms
            if arm.told == "asked" and arm.method.keep is not None
        ]
    )
    frame.loc[frame["measured"], "p"] = holm(frame.loc[frame["measured"], "p"].tolist())
    tight = frame[frame["keep"] == frame["keep"].min()].set_index("arm")["estimate"]
    return (
        frame.assign(order=frame["arm"].map(tight))
        .sort_values(
            ["hears", "order", "arm", "keep"], ascending=[False, False, True, False], ignore_index=True
        )
        .drop(columns="order")
    )


def name_of(arm: str) -> str:
    """An arm's label without a comma, as it stands in lists: "FastV (layer=1)"."""
    method, _, changed = look(arm).label.partition(", ")
    return f"{method} ({changed})" if changed else method


def _loss(study: Study, arm: str, keep: int, measured: bool) -> dict[str, object]:
    other = arm + EARLIER if measured else arm
    found = find(
        Clause(kind="order", text=f"{arm} - {other} @ {keep}", left=arm, right=other, budget=keep),
        study.evidence,
    )
    row: dict[str, object] = {"arm": arm, "label": name_of(arm), "series": f"{keep} tokens", "keep": keep}
    row |= {"hears": arm not in _DEAF, "measured": measured, "n": found.n}
    for side, name in (("own", arm), ("earlier", other)):
        level = levels(study, [name], keep).iloc[0]
        row |= {side: level["estimate"], f"{side}_low": level["low"], f"{side}_high": level["high"]}
    return row | {"estimate": found.estimate, "low": found.low, "high": found.high, "p": found.p}


def draw(study: Study, frame: pd.DataFrame) -> Figure:
    """Draw both accuracies of every method, one panel a budget: filled for its own question, open for the earlier one."""
    names, budgets = list(dict.fromkeys(frame["arm"])), sorted(set(frame["keep"]), reverse=True)
    figure, axes = plt.subplots(
        1,
        len(budgets),
        figsize=(3.2 + 3.4 * len(budgets), 1.7 + 0.42 * len(names)),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, keep in zip(axes.flat, budgets, strict=True):
        _panel(ax, frame[frame["keep"] == keep].set_index("arm").loc[names], study, keep)
    hears = int(frame.drop_duplicates("arm")["hears"].sum())
    for ax in axes.flat:
        ax.axhline(hears - 0.5, color="0.75", linewidth=0.8)
    name_lines(axes.flat[0], [name_of(name) for name in names])
    figure.supxlabel("accuracy on the question asked, 95 % interval over images", fontsize="medium")
    dot = {"marker": "o", "linestyle": "none", "color": "0.2", "markersize": 7}
    handles = [
        Line2D([], [], label="tokens chosen for this question", **dot),
        Line2D([], [], label="tokens chosen for an earlier question", markerfacecolor="white", **dot),
        Line2D([], [], label="random", color="0.35", linestyle=":"),
        Line2D([], [], label="unpruned", color="0.15", linewidth=1.1),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, study: Study, keep: int) -> None:
    for place, (arm, row) in enumerate(rows.iterrows()):
        colour = look(arm).colour
        ax.plot([row["earlier"], row["own"]], [place] * 2, color=colour, linewidth=2.4, alpha=0.35)
    style = {"size": 7, "markeredgewidth": 1.4, "capsize": 2.5, "linewidth": 1.2}
    for side, shift in (("own", -0.13), ("earlier", 0.13)):
        mine = rows.assign(low=rows[f"{side}_low"], high=rows[f"{side}_high"], filled=side == "own")
        dress = {arm: Series(look(arm).colour, "o", shift) for arm in rows.index}
        forest(ax, mine.reset_index(), list(rows.index), dress, at="arm", by="arm", value=side, **style)
    for arm, style in (("random", ":"), ("none", "-")):
        level = levels(study, [arm], keep)["estimate"].iloc[0]
        ax.axvline(level, color="0.35" if style == ":" else "0.15", linestyle=style, linewidth=1.3, zorder=0)
    lose, gain = (len(some) for some in _moved(rows))
    ax.set_title(f"{keep} of {study.tokens} tokens: {lose} lose, {gain} gain")
    sns.despine(ax=ax)


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracies and losses as text of fixed width, one row a method and budget; * where the adjusted p is below 0.05."""
    told = {
        "own question": [f"{value:.3f}" for value in frame["own"]],
        "earlier question": [f"{value:.3f}" for value in frame["earlier"]],
        "loss": starred(frame.assign(**(frame[["estimate", "low", "high"]].round(6) + 0)), blank=" "),
        "p (Holm)": [
            "by construction" if not measured else "<0.001" if p < 0.001 else f"{p:.3f}"
            for p, measured in zip(frame["p"], frame["measured"], strict=True)
        ],
    }
    columns = {"method": frame["label"], "keep": frame["keep"]}
    hears = {"hears the question": np.where(frame["hears"], "yes", "no")}
    return pd.DataFrame(columns | hears | told)


def _moved(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Methods that hear the question (no oracle) and answer the next one surely worse, and those surely better."""
    sure = rows[rows["hears"] & (rows["label"] != look("oracle").label) & (rows["p"] < 0.05)]
    return sure[sure["estimate"] > 0], sure[sure["estimate"] < 0]


def sentence(study: Study, frame: pd.DataFrame, keep: int) -> str:
    """Say at one budget how many methods lose or gain, who loses most and who is ahead for each kind of question."""
    mine = frame[frame["keep"] == keep]
    hears = mine[mine["hears"] & (mine["arm"] != "oracle")]
    lose, gain = _moved(mine)
    worst, oracle = hears.loc[hears["estimate"].idxmax()], mine[mine["arm"] == "oracle"].iloc[0]
    chance = levels(study, ["random"], keep)["estimate"].iloc[0]
    under = hears.loc[hears["earlier_high"] < chance, "label"].tolist()
    best = {side: hears.loc[hears[side].idxmax()] for side in ("own", "earlier")}
    deaf = mine[~mine["hears"] & (mine["arm"] != "random")]
    deaf = deaf.loc[deaf["own"].idxmax()]
    better = f" and {len(gain)} better ({listing(gain['label'])})" if len(gain) else ""
    return (
        f"At {keep} tokens {len(lose)} of {len(hears)} methods that hear the question answer the next one worse{better}, "
        f"Holm-adjusted. The widest loss is that of {worst['label']}: {worst['own']:.3f} becomes {worst['earlier']:.3f}, "
        f"{row_interval(worst)} lost; the oracle, which is told where the "
        f"answer lies, loses {row_interval(oracle)}. Of their intervals "
        f"for the next question {len(under)} {'lies' if len(under) == 1 else 'lie'} below random tokens ({chance:.3f})"
        f"{': ' + listing(under) if under else ''}. Most right answers for its own question: {best['own']['label']} "
        f"({best['own']['own']:.3f}); for the next one: {best['earlier']['label']} ({best['earlier']['earlier']:.3f}); "
        f"the best that hears nothing, {deaf['label']}, has {deaf['own']:.3f} for either."
    )


def sure_sentence(frame: pd.DataFrame) -> str:
    """Count what is left after the adjustment."""
    mine = frame[frame["measured"]]
    lose, gain = ((mine["p"] < 0.05) & (sign * mine["estimate"] > 0) for sign in (1, -1))
    return (
        f"Of {len(mine)} measured differences {lose.sum()} are losses and {gain.sum()} gains with an adjusted p below 0.05; "
        f"the other {len(mine) - lose.sum() - gain.sum()} may be chance."
    )


def blind_sentence(study: Study, keep: int) -> str:
    """Say what the methods that hear nothing show: [CLS] must not move at all, random by no more than chance."""
    same = same_answers(study, "cls", "cls" + EARLIER, keep)
    rows = {arm: levels(study, [arm], keep)["estimate"].iloc[0] for arm in ("random", "random" + EARLIER)}
    found = find(
        Clause(kind="order", text="random", left="random", right="random" + EARLIER, budget=keep),
        study.evidence,
    )
    holds = (
        "holds zero"
        if found.low <= 0 <= found.high
        else "does not hold zero, although nothing but luck differs"
    )
    return (
        f"At {keep} tokens [CLS] top-k gives {same:.1%} of its answers again. Random draws anew for another text, as its "
        f"seed is made of pixels and text: {rows['random']:.3f} and {rows['random' + EARLIER]:.3f}; the interval of the "
        f"difference [{found.low:+.3f}, {found.high:+.3f}] {holds}."
    )


def pairs_of_suites(study: Study, arm: str, keep: int, column: str = "correct") -> pd.DataFrame:
    """Mean of a column under the own question minus under the earlier one: rows earlier suite, columns suite asked.

    Questions without a value (no evidence) are left out; the diagonal is empty.
    """
    rows = study.accuracy[study.accuracy["keep"] == keep]
    keys = ["question_id", "image_id", "suite"]
    own, earlier = (rows[rows["arm"] == name].set_index(keys)[column] for name in (arm, arm + EARLIER))
    gap = (own - earlier).dropna().rename("gap").reset_index()
    pictures = gap["image_id"].str.rsplit("-", n=1).str[-1].astype(int)
    places = gap["suite"].map(SUITES.index)
    before = [
        SUITES[earlier_place(picture, place, len(SUITES))]
        for picture, place in zip(pictures, places, strict=True)
    ]
    wide = gap.assign(before=before).pivot_table(index="before", columns="suite", values="gap")
    return wide.reindex(index=list(SUITES), columns=list(SUITES))


def draw_pairs(
    study: Study, arms: Sequence[str], keep: int, column: str, told: str
) -> tuple[Figure, pd.DataFrame]:
    """Draw `pairs_of_suites` of several arms as maps on one scale; also return the drawn numbers in rows."""
    maps = {arm: pairs_of_suites(study, arm, keep, column) for arm in arms}
    top = max(float(np.nanmax(np.abs(one.to_numpy()))) for one in maps.values())
    figure, axes = plt.subplots(
        1, len(arms), figsize=(1.6 + 3.3 * len(arms), 4.0), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (arm, values) in zip(axes.flat, maps.items(), strict=True):
        marks = values.map(lambda value: "" if np.isnan(value) else f"{round(100 * value) + 0:d}")
        heatmap(ax, values, marks, limits=(-top, top), square=True)
        ax.spines[:].set_visible(True)  # the empty cells belong to the map
        middles = np.arange(len(SUITES)) + 0.5
        ax.set_xticks(middles, SUITES, rotation=45, ha="right", rotation_mode="anchor")
        ax.set_yticks(middles, SUITES, rotation=0)
        ax.set(title=name_of(arm), xlabel="suite of the question asked")
    axes.flat[0].set_ylabel("suite of the earlier question")
    figure.suptitle(told)
    rows = [one.stack().dropna().rename("loss").reset_index().assign(arm=arm) for arm, one in maps.items()]
    return figure, pd.concat(rows, ignore_index=True)


def pair_sentence(study: Study, arm: str, keep: int) -> str:
    """Name the dearest and the cheapest earlier suite of one arm, each averaged over the questions asked."""
    values = pairs_of_suites(study, arm, keep)
    asked, before = values.mean(axis=0), values.mean(axis=1)
    return (
        f"{name_of(arm)}: questions of {asked.idxmax()} lose most ({asked.max():.2f}), those of {asked.idxmin()} least "
        f"({asked.min():.2f}); the dearest question to have chosen for is one of {before.idxmax()} ({before.max():.2f}), "
        f"the cheapest one of {before.idxmin()} ({before.min():.2f})."
    )


def evidence(study: Study, arms: Sequence[str], keep: int) -> pd.DataFrame:
    """Share of the asked question's evidence among the kept tokens: method, own question, earlier question."""
    rows = study.accuracy[study.accuracy["keep"] == keep]
    found = rows.groupby("arm")["kept_on_evidence"].mean()
    own, earlier = found.loc[list(arms)], found.loc[[arm + EARLIER for arm in arms]]
    return pd.DataFrame(
        {
            "method": [name_of(arm) for arm in arms],
            "own question": own.round(3).to_numpy(),
            "earlier question": earlier.round(3).to_numpy(),
        }
    )


def evidence_sentence(study: Study, found: pd.DataFrame, keep: int) -> str:
    """Say of whose tokens the question's own hold less of its evidence than another question's do."""
    away = found.loc[found["own question"] < found["earlier question"], "method"].tolist()
    chance = f"Tokens drawn by chance hold {keep / study.tokens:.3f} of the evidence."
    if not away:
        return f"{chance} All {len(found)} hold at least as much for the question itself as for another one."
    return (
        f"{chance} {len(away)} of {len(found)} hold less for the question itself than for another one: {listing(away)}. "
        "What they hear leads them away from it."
    )
