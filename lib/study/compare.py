"""Compare arms for figures and controls, with the paired and clustered intervals that the claims use."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lib.pruning.methods import NAMES, make
from lib.study.cost import formula
from lib.study.evidence import Study
from lib.study.records import TOLD, method_of
from lib.study.rules import Clause, find
from lib.study.stats import mean_interval
from lib.study.tables import ALL, per_question, suite_weights

SHUFFLED = TOLD["shuffled"]
INSIDE = "/positions=original,layer=2"  # a control that prunes where methods inside the language model do


def check_arm(study: Study, arm: str) -> None:
    """Refuse a name that is neither a method of the package nor in the records: it must be a slip.

    A known method that was not run is no fault: figures and tables leave it out.
    """
    name = method_of(arm)
    if name not in NAMES and arm not in set(study.table["method"]):
        raise ValueError(f"arm {arm!r} has no record and {name!r} is no method; known: {', '.join(NAMES)}")


def difference(study: Study, left: str, right: str, keep: int, suites: Sequence[str] = (ALL,)) -> dict:
    """Measure a paired accuracy difference of two arms, as the claims do.

    Returns
    -------
    dict
        left, right, keep, suite, n, estimate, low, high; n is 0 where an arm was not run.
    """
    for arm in (left, right):
        check_arm(study, arm)
    clause = Clause(
        kind="order", text=f"{left} - {right}", left=left, right=right, budget=keep, suites=tuple(suites)
    )
    found = find(clause, study.evidence)
    numbers = {"n": found.n, "estimate": found.estimate, "low": found.low, "high": found.high}
    return {"left": left, "right": right, "keep": keep, "suite": ",".join(suites), **numbers}


def levels(study: Study, arms: Sequence[str], keep: int, suite: str = ALL) -> pd.DataFrame:
    """Look up accuracies of arms at one budget, in the given order; arms that were not run are left out.

    Returns
    -------
    DataFrame
        arm (a name that `lib.study.pages.looks.look` knows), record (the label in the records), n, estimate, low,
        high.
    """
    table = study.table[study.table["suite"] == suite]
    rows = []
    for arm in arms:
        check_arm(study, arm)
        mine = table[(table["method"] == arm) & ((table["keep"] == keep) | (arm in ("none", "blind")))]
        if len(mine):
            found = mine.iloc[0]
            dressed = arm.replace(SHUFFLED, "/shuffled" if "/" not in arm else ",shuffled")
            rows.append((dressed, arm, *found[["n", "accuracy", "low", "high"]]))
    return pd.DataFrame(rows, columns=["arm", "record", "n", "estimate", "low", "high"])


def retention_intervals(study: Study) -> pd.DataFrame:
    """Divide every answer's score by its suite's unpruned accuracy; mean over suites with interval.

    The unpruned accuracy is taken as given, so the interval says how the arm's own answers spread. Suites
    that the unpruned model never answers right have no ratio and are left out.

    Returns
    -------
    DataFrame
        Columns as of `lib.study.tables.accuracy_table`, suite "all", with the ratio as accuracy.
    """
    rows = per_question(study.accuracy)
    full = rows[rows["arm"] == "none"].groupby("suite")["correct"].mean()
    rows = rows[rows["suite"].map(full).fillna(0) > 0]
    out = []
    for (model, arm, keep), mine in rows.groupby(["model", "arm", "keep"]):
        found = mean_interval(
            (mine["correct"] / mine["suite"].map(full)).to_numpy(),
            mine["image_id"].astype("category").cat.codes.to_numpy(),
            study.seed,
            weights=suite_weights(mine["suite"]).to_numpy(),
        )
        out.append((model, arm, keep, ALL, found.n, found.estimate, found.low, found.high))
    columns = ["model", "method", "keep", "suite", "n", "accuracy", "low", "high"]
    return pd.DataFrame(out, columns=columns).round(4)


def controls(study: Study, keep: int) -> pd.DataFrame:
    """Test what must hold if the measurement works: oracle above every method, random and blind below.

    A method inside the language model is held against the oracle and random choice at the same layer, where those were run.

    Returns
    -------
    DataFrame
        control, comparison, n, estimate, low, high, holds ("yes", "no" or "undecided": the interval holds 0).
    """
    methods = [arm for arm in ("desap", "adaptprune", "cls", "fastv") if _has(study, arm, keep)]
    pairs = [("oracle above", alike(study, "oracle", arm, keep), arm) for arm in methods]
    pairs += [("random below", arm, alike(study, "random", arm, keep)) for arm in methods]
    pairs += [("blind below", arm, "blind") for arm in [*methods, "random"]]
    task = "desap/share=1.0"
    pairs += [("shuffled question hurts", arm, arm + SHUFFLED) for arm in ("desap", task)]
    pairs += [("shuffled cue adds nothing over random", task + SHUFFLED, "random")]
    rows = []
    for control, left, right in pairs:
        found = difference(study, left, right, keep)
        holds = "yes" if found["low"] > 0 else "no" if found["high"] < 0 else "undecided"
        if control.endswith("over random"):
            holds = "yes" if found["low"] <= 0 else "no"
        if found["n"]:
            numbers = [round(found[name], 3) for name in ("estimate", "low", "high")]
            rows.append((control, f"{left} - {right}", keep, found["n"], *numbers, holds))
    names = ["control", "comparison", "keep", "n", "estimate", "low", "high", "holds"]
    return pd.DataFrame(rows, columns=names)


def _has(study: Study, arm: str, keep: int) -> bool:
    return bool(((study.table["method"] == arm) & (study.table["keep"] == keep)).any())


def alike(study: Study, control: str, arm: str, keep: int) -> str:
    """The control that prunes at the place where `arm` does; the one before the language model where it was not run."""
    check_arm(study, arm)
    name = method_of(arm)
    inside = name in NAMES and make(name, keep=1).stage in ("decoder", "staged")
    return control + INSIDE if inside and _has(study, control + INSIDE, keep) else control


def same_answers(study: Study, left: str, right: str, keep: int) -> float:
    """Share of the questions that two arms of one budget answer alike; NaN where one was not run."""
    rows = study.accuracy[study.accuracy["keep"] == keep]
    sides = [rows[rows["arm"] == arm].set_index("question_id")["prediction"] for arm in (left, right)]
    pair = pd.concat(sides, axis=1, join="inner")
    return float((pair.iloc[:, 0] == pair.iloc[:, 1]).mean())


def cost_table(*names: str) -> pd.DataFrame:
    """Evaluate named formulas of `lib.study.cost`, three decimals."""
    return pd.DataFrame({"formula": names, "value": [round(formula(name), 3) for name in names]})
