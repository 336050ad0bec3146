"""The papers' ablations, each listed once: what arms are run, what a figure's axis says and what is held against what follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

from lib.models.architectures import Sizes
from lib.pruning.depth import entering
from lib.pruning.methods import make
from lib.study.evidence import Study
from lib.study.records import arm_label
from lib.study.rules import Clause, find
from lib.study.stats import holm

# What the rule of `lib.pruning.depth` makes of 2 of 32 layers here, layer 1 of 5: see `lib.study.arms`.
MAPPED = entering(2, Sizes().layers)


class Ablation(NamedTuple):
    """One change of a method, or its default where nothing is changed.

    Attributes
    ----------
    method
        A name of `lib.pruning.methods`.
    group, label
        Heading and words in the figure of all ablations; no label: not a line of it.
    fields
        What is changed.
    bars
        Words by the name of a claim's bar figure that shows it.
    base
        Fields that the arm and what it is held against have in common.
    listed
        Whether the arm is run at the tightest budget for this list; others `lib.study.arms` runs at every budget.
    mapped
        Whether it is also run with the cut at layer `MAPPED`, against the default there.
    """

    method: str
    group: str
    label: str
    fields: Mapping[str, object]
    bars: Mapping[str, str] = MappingProxyType({})
    base: Mapping[str, object] = MappingProxyType({})
    listed: bool = True
    mapped: bool = False

    def arm(self, **more: object) -> str:
        """The arm's label in the records, with `more` fields changed."""
        return arm_label(make(self.method, keep=1, **{**self.base, **self.fields, **more}))

    def reference(self, **more: object) -> str:
        """The label of what the arm is held against."""
        return arm_label(make(self.method, keep=1, **{**self.base, **more}))


TASK_ONLY: Mapping[str, object] = MappingProxyType({"share": 1.0})
_D7, _D8, _D9, _A2 = "D-7_share", "D-8_attention", "D-9_similarity", "A-2_cues"


def _desap(group: str, label: str, fields: Mapping[str, object], bars: Mapping[str, str], **rest) -> Ablation:
    return Ablation("desap", group, label, fields, bars, **rest)


def _task_only(label: str, fields: Mapping[str, object], bar: str) -> Ablation:
    return Ablation("desap", "task only, against task only", label, fields, {_D9: bar}, TASK_ONLY)


def _adaptprune(
    group: str, label: str, bar: str = "", *, mapped: bool = True, listed: bool = True, **fields
) -> Ablation:
    bars = {_A2: bar} if bar else {}
    return Ablation("adaptprune", group, label, fields, bars, listed=listed, mapped=mapped)


_SHARE, _KIND, _REST = (
    "task share (default 50 %)",
    "task attention (default query-query)",
    "saliency, merging, positions",
)
_CUES, _OFF, _CONSTANTS, _KEYS = (
    "cues one by one (default: all)",
    "one cue off",
    "constants",
    "keys and place",
)
# In the order of drawing.
ABLATIONS: tuple[Ablation, ...] = (
    _desap("", "", {}, {_D7: "half task, half saliency", _D8: "query-query"}),
    _desap(_SHARE, "share 0 % (saliency only)", {"share": 0.0}, {_D7: "saliency only"}),
    _desap(_SHARE, "share 25 %", {"share": 0.25}, {_D7: "a quarter task"}),
    _desap(_SHARE, "share 75 %", {"share": 0.75}, {_D7: "three quarters task"}),
    _desap(_SHARE, "share 100 % (task only)", TASK_ONLY, {_D7: "task only", _D9: "decoupled, aligned"}),
    _desap(_SHARE, "sum of both maps", {"combine": "sum"}, {_D7: "sum of both maps"}),
    _desap(_KIND, "query-key", {"attention": "qk"}, {_D8: "query-key"}),
    _desap(_KIND, "value-value", {"attention": "vv"}, {_D8: "value-value"}),
    _desap(_KIND, "key-key", {"attention": "kk"}, {_D8: "key-key"}),
    _desap(_REST, "[CLS] of layer -2", {"saliency_layer": -2}, {_D8: "saliency from layer -2"}),
    _desap(_REST, "merge off", {"merge": False}, {_D7: "half and half, no merging"}),
    _desap(_REST, "original positions", {"positions": "original"}, {}, listed=False),
    _task_only("alignment off", {"aligned": False}, "decoupled, plain cosine"),
    _task_only("vanilla similarity", {"similarity": "vanilla"}, "vanilla, aligned"),
    _task_only(
        "vanilla, alignment off", {"similarity": "vanilla", "aligned": False}, "vanilla, plain cosine"
    ),
    _task_only("negated similarity", {"similarity": "negated"}, "vanilla, sign turned"),
    _task_only("special tokens off", {"special_tokens": False}, "no start and end token"),
    _task_only("raw features", {"normalised": False}, "not normalised"),
    _adaptprune(_CUES, "attention alone", "attention alone", centre=False, spatial=False, similarity=False),
    _adaptprune(_CUES, "+ centre prior", "+ centre prior", spatial=False, similarity=False),
    _adaptprune(_CUES, "+ centre prior + distance", "+ distance", similarity=False),
    _adaptprune("", "", "+ similarity (all cues)"),
    _adaptprune(_OFF, "centre prior off", "all but centre prior", centre=False),
    _adaptprune(_OFF, "distance off", "all but distance", spatial=False),
    _adaptprune(_OFF, "recency trend, no centre prior", centre=False, recency=True),
    _adaptprune(_CONSTANTS, "centre sigma halved", sigma_centre=6.0),
    _adaptprune(_CONSTANTS, "centre sigma doubled", sigma_centre=24.0),
    _adaptprune(_CONSTANTS, "radius halved", radius=2.5),
    _adaptprune(_CONSTANTS, "radius doubled", radius=10.0),
    _adaptprune(_CONSTANTS, "distance sigma halved", sigma_distance=0.75),
    _adaptprune(_CONSTANTS, "distance sigma doubled", sigma_distance=3.0),
    _adaptprune(_CONSTANTS, "likeness sigma halved", sigma_similarity=0.025),
    _adaptprune(_CONSTANTS, "likeness sigma doubled", sigma_similarity=0.1),
    _adaptprune(_KEYS, "keys after layer norm", "all, keys after layer norm", keys="normed"),
    _adaptprune(_KEYS, "constants scaled to grid", mapped=False, listed=False, scale_to_grid=True),
    _adaptprune(_KEYS, "one layer earlier (1: mapped)", mapped=False, listed=False, layer=MAPPED),
    _adaptprune(_KEYS, "one layer later (3)", "all, one layer later", mapped=False, layer=3),
)


def bars(figure: str) -> dict[str, str]:
    """Arms of a claim's bar figure in the records' words, to text at the axis, in the order of drawing."""
    return {one.arm(): one.bars[figure] for one in ABLATIONS if figure in one.bars}


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


_NAMES = {"desap": "DeSAP", "adaptprune": "AdaptPrune"}
SWITCHES: tuple[Switch, ...] = tuple(
    Switch(_NAMES[one.method], series, one.group, one.label, one.arm(**more), one.reference(**more))
    for method, series, more in (
        ("desap", "default", {}),
        ("desap", "task only", {}),
        ("adaptprune", "layer 2 (default)", {}),
        ("adaptprune", "layer 1", {"layer": MAPPED}),
    )
    for one in ABLATIONS
    if one.label
    and one.method == method
    and bool(one.base) == (series == "task only")
    and (one.mapped or not more)
)


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
