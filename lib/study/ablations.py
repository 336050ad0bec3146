"""The papers' ablations at a glance: every switch of a method against its default, on the same questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.study.evidence import Study
from lib.study.pages.forest import point_intervals
from lib.study.pages.looks import BLUE, ORANGE
from lib.study.rules import Clause, find
from lib.study.stats import holm
from lib.study.wording import listing

LEVEL = 0.05
REACH = 0.25  # accuracy that both panels reach to either side; what lies beyond is drawn at the edge, with its number
_TASK = "desap/share=1.0"
# Group of switches to arm to what the arm changes, in the order of drawing. Arms are named as in the records.
_DESAP: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "task share (default 50 %)": {
            "desap/share=0.0": "share 0 % (saliency only)",
            "desap/share=0.25": "share 25 %",
            "desap/share=0.75": "share 75 %",
            _TASK: "share 100 % (task only)",
            "desap/combine=sum": "sum of both maps",
        },
        "task attention (default query-query)": {
            "desap/attention=qk": "query-key",
            "desap/attention=vv": "value-value",
            "desap/attention=kk": "key-key",
        },
        "saliency, merging, positions": {
            "desap/saliency_layer=-2": "[CLS] of layer -2",
            "desap/merge=False": "merge off",
            "desap/positions=original": "original positions",
        },
    }
)
_TASK_ONLY: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "task only, against task only": {
            f"{_TASK},aligned=False": "alignment off",
            f"{_TASK},similarity=vanilla": "vanilla similarity",
            f"{_TASK},similarity=vanilla,aligned=False": "vanilla, alignment off",
            f"{_TASK},similarity=negated": "negated similarity",
            f"{_TASK},special_tokens=False": "special tokens off",
            f"{_TASK},normalised=False": "raw features",
        }
    }
)
# The same without the method's name, as they are turned at two layers.
_ADAPTPRUNE: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "cues one by one (default: all)": {
            "centre=False,spatial=False,similarity=False": "attention alone",
            "spatial=False,similarity=False": "+ centre prior",
            "similarity=False": "+ centre prior + distance",
        },
        "one cue off": {
            "centre=False": "centre prior off",
            "spatial=False": "distance off",
            "centre=False,recency=True": "recency trend, no centre prior",
        },
        "constants": {
            "sigma_centre=6.0": "centre sigma halved",
            "sigma_centre=24.0": "centre sigma doubled",
            "radius=2.5": "radius halved",
            "radius=10.0": "radius doubled",
            "sigma_distance=0.75": "distance sigma halved",
            "sigma_distance=3.0": "distance sigma doubled",
            "sigma_similarity=0.025": "likeness sigma halved",
            "sigma_similarity=0.1": "likeness sigma doubled",
        },
        "keys and place": {
            "keys=normed": "keys after layer norm",
            "scale_to_grid=True": "constants scaled to grid",
            "layer=1": "one layer earlier (1: mapped)",
            "layer=3": "one layer later (3)",
        },
    }
)
_ONCE = ("scale_to_grid=True", "layer=1", "layer=3")  # turned at the published layer only


class Switch(NamedTuple):
    """One arm and what it is held against.

    Attributes
    ----------
    paper
        The method, which is the family of Holm's correction.
    series
        Where the method runs or which default it is held against: a colour and marker.
    group, label
        Heading and words at the axis.
    arm, reference
        Labels in the records.
    """

    paper: str
    series: str
    group: str
    label: str
    arm: str
    reference: str


def _flat(paper: str, series: str, groups: Mapping[str, Mapping[str, str]], reference: str) -> list[Switch]:
    return [
        Switch(paper, series, group, label, arm, reference)
        for group, arms in groups.items()
        for arm, label in arms.items()
    ]


def _at_layer(series: str, start: str, reference: str, without: Sequence[str] = ()) -> list[Switch]:
    groups = {
        group: {start + fields: label for fields, label in arms.items() if fields not in without}
        for group, arms in _ADAPTPRUNE.items()
    }
    return _flat("AdaptPrune", series, groups, reference)


SWITCHES: tuple[Switch, ...] = (
    *_flat("DeSAP", "default", _DESAP, "desap"),
    *_flat("DeSAP", "task only", _TASK_ONLY, _TASK),
    *_at_layer("layer 2 (default)", "adaptprune/", "adaptprune"),
    *_at_layer("layer 1", "adaptprune/layer=1,", "adaptprune/layer=1", _ONCE),
)
# Series: colour and marker, told apart by both.
_LOOKS = {
    "default": (BLUE, "o"),
    "task only": (BLUE, "o"),
    "layer 2 (default)": (BLUE, "o"),
    "layer 1": (ORANGE, "s"),
}


def differences(study: Study, keep: int, switches: Sequence[Switch] = SWITCHES) -> pd.DataFrame:
    """Measure each ablation minus what it is held against, paired over questions, Holm-adjusted within a paper.

    Returns
    -------
    DataFrame
        The fields of `Switch`, then n, estimate, low, high (accuracy, mean over suites) and p (adjusted); arms that were
        not run at this budget are left out.
    """
    rows = []
    for switch in switches:
        text = f"{switch.arm} - {switch.reference}"
        clause = Clause(kind="order", text=text, left=switch.arm, right=switch.reference, budget=keep)
        found = find(clause, study.evidence)
        if found.n:
            rows.append((*switch, found.n, found.estimate, found.low, found.high, found.p))
    frame = pd.DataFrame(rows, columns=[*Switch._fields, "n", "estimate", "low", "high", "p"])
    frame["p"] = frame["p"].astype(float)
    frame["p"] = frame.groupby("paper", sort=False)["p"].transform(holm)
    return frame


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
    """Draw `differences`, a panel a paper, a line a switch; filled where Holm's rule tells it apart from 0.

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
    for name in series:
        colour, marker = _LOOKS[name]
        shift = 0.22 * (looks.index(_LOOKS[name]) - (len(looks) - 1) / 2)
        mine = frame[frame["series"] == name]
        for row in mine[mine["estimate"].abs() > REACH].itertuples():
            _beyond(ax, row.estimate, lines.index((row.group, row.label)), colour)
        mine = mine[mine["estimate"].abs() <= REACH]
        for sure, part in mine.groupby(mine["p"] < LEVEL):
            places = [lines.index(key) + shift for key in zip(part["group"], part["label"], strict=True)]
            point_intervals(
                ax, part, places, colour=colour, marker=marker, size=5.5,
                markerfacecolor=colour if sure else "white", markeredgewidth=1.3,
            )  # fmt: skip
        if len(looks) > 1:  # one entry a series, filled or not
            ax.plot([], [], marker=marker, color=colour, linestyle="none", label=name)
    ax.axvline(0, color="0.15", linewidth=1.1, zorder=1)
    ax.set_yticks(range(len(lines)), [label or group for group, label in lines])
    for text, (_, label) in zip(ax.get_yticklabels(), lines, strict=True):
        text.set_fontweight("normal" if label else "bold")
    ax.set_ylim(len(lines) - 0.4, -0.6)
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
    told = [
        f"{row.estimate:+.3f} [{row.low:+.3f}, {row.high:+.3f}]{'*' if row.p < LEVEL else ''}"
        for row in frame.itertuples()
    ]
    series = list(dict.fromkeys(frame["series"]))
    keys = ["paper", "group", "label"]
    wide = frame.assign(told=told).pivot(index=keys, columns="series", values="told")
    order = pd.MultiIndex.from_frame(frame[keys].drop_duplicates())
    return wide.loc[order, series].fillna("").rename_axis(columns="against")


def sentence(frame: pd.DataFrame) -> str:
    """Say, a series a line of a list, what helps and what hurts the method."""
    told = []
    for (paper, series), mine in frame.groupby(["paper", "series"], sort=False):
        sure = mine[mine["p"] < LEVEL].sort_values("estimate", kind="stable")
        parts = [
            f"{row.label} ({row.estimate:+.3f} [{row.low:+.3f}, {row.high:+.3f}])"
            for row in sure.itertuples()
        ]
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
