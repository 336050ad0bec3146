"""The papers' ablations at a glance: every switch of a method against its default, on the same questions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pandas as pd

from lib.study.captions import LABELS
from lib.study.report import Study
from lib.study.rules import Clause, find
from lib.study.stats import holm
from lib.study.tables import ALL

_TASK = "desap/share=1.0"
_CONSTANTS = {
    "centre=False,recency=True": "recency trend out, no centre prior",
    "sigma_centre=6.0": "centre prior half as wide",
    "sigma_centre=24.0": "centre prior twice as wide",
    "radius=2.5": "half the radius",
    "radius=10.0": "twice the radius",
    "sigma_distance=0.75": "distance fades twice as fast",
    "sigma_distance=3.0": "distance fades half as fast",
    "sigma_similarity=0.025": "likeness fades twice as fast",
    "sigma_similarity=0.1": "likeness fades half as fast",
}
_SWITCHES = {
    arm.removeprefix("adaptprune/"): words
    for arm, words in LABELS["A-2_cues"].items()
    if arm not in ("adaptprune", "adaptprune/layer=3")
} | _CONSTANTS
# Series in a figure: the arm held against, and what each other arm changes.
DESAP: Mapping[str, tuple[str, Mapping[str, str]]] = MappingProxyType(
    {
        "against DeSAP": (
            "desap",
            {
                arm: words
                for name in ("D-7_share", "D-8_attention")
                for arm, words in LABELS[name].items()
                if arm != "desap"
            }
            | {"desap/positions=original": "original positions"},
        ),
        "against its task cue alone": (
            _TASK,
            {arm: words for arm, words in LABELS["D-9_similarity"].items() if arm not in (_TASK, "random")},
        ),
    }
)
ADAPTPRUNE: Mapping[str, tuple[str, Mapping[str, str]]] = MappingProxyType(
    {
        "pruned at layer 2": (
            "adaptprune",
            {f"adaptprune/{fields}": words for fields, words in _SWITCHES.items()},
        ),
        "pruned at layer 1": (
            "adaptprune/layer=1",
            {f"adaptprune/layer=1,{fields}": words for fields, words in _SWITCHES.items()},
        ),
    }
)


def differences(
    study: Study, families: Mapping[str, tuple[str, Mapping[str, str]]], keep: int
) -> pd.DataFrame:
    """Measure each ablation minus what it is held against, paired over questions, Holm-adjusted within a series.

    Returns
    -------
    DataFrame
        arm, reference, label, series, n, estimate, low, high, p (adjusted), as `lib.study.panels.dots` draws it; arms that
        were not run are left out.
    """
    rows = []
    for series, (reference, arms) in families.items():
        found = {
            arm: find(
                Clause(
                    kind="order",
                    text=f"{arm} - {reference}",
                    left=arm,
                    right=reference,
                    budget=keep,
                    suites=(ALL,),
                ),
                study.evidence,
            )
            for arm in arms
        }
        found = {arm: number for arm, number in found.items() if number.n}
        adjusted = holm([number.p for number in found.values()])
        for (arm, number), p in zip(found.items(), adjusted, strict=True):
            rows.append(
                (arm, reference, arms[arm], series, number.n, number.estimate, number.low, number.high, p)
            )
    names = ["arm", "reference", "label", "series", "n", "estimate", "low", "high", "p"]
    return pd.DataFrame(rows, columns=names)


def title(frame: pd.DataFrame, keep: int) -> str:
    """Say how many switches matter, and which matters most."""
    sure = frame[frame["p"] < 0.05]
    told = f"{keep} tokens: {len(sure)} of {len(frame)} changes are told apart from the default"
    if sure.empty:
        return told
    most = sure.loc[sure["estimate"].abs().idxmax()]
    return f"{told};\nmost is {'won' if most['estimate'] > 0 else 'lost'} by “{most['label']}”, {most['series']} ({most['estimate']:+.2f})"


def sentence(frame: pd.DataFrame) -> str:
    """Say, a series a sentence, what helps and what hurts the method."""
    told = []
    for series, mine in frame.groupby("series", sort=False):
        sure = mine[mine["p"] < 0.05].sort_values("estimate")
        parts = [
            f"{row.label} ({row.estimate:+.3f} [{row.low:+.3f}, {row.high:+.3f}])"
            for row in sure.itertuples()
        ]
        helps = [part for part, value in zip(parts, sure["estimate"], strict=True) if value > 0]
        hurts = [part for part, value in zip(parts, sure["estimate"], strict=True) if value < 0]
        told.append(
            f"{series[0].upper()}{series[1:]}: of {len(mine)} changes {len(hurts)} lose answers"
            + (f" ({'; '.join(hurts)})" if hurts else "")
            + f" and {len(helps)} win some"
            + (f" ({'; '.join(helps)})" if helps else "")
            + "."
        )
    return "**Answer.** " + " ".join(told)
