"""Read the rules of `data/claims.csv` and measure what they ask for.

A rule is a list of clauses with ``;`` between them and, after ``#``, a note for the reader. A clause is one
of

``order A > B @ 16 32 on all margin 0.01``
    Paired accuracy difference of arms A and B, at each named budget, over the named suites (comma-joined;
    ``all`` weighs every suite the same). ``>`` asks for a difference above the margin, ``>=`` for one above
    minus the margin (not worse), ``~`` for one between both (no difference that matters). The arms none and
    blind have no budget.
``mechanism X > Y margin 0``
    The same for two measured quantities of the ``measure`` records.
``identity X``
    A measured quantity is 1 in every trial.
``cost X between 9.5 10.5``
    A named formula of `lib.study.cost` gives a value in that range.
``untestable some reason``
    Nothing here can judge it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.study.cost import formula
from lib.study.stats import Interval, paired_difference
from lib.study.tables import ALL, suite_weights

RELATIONS = (">", ">=", "~")
ANY_BUDGET = ("none", "blind")


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One condition of a rule. What a kind does not use stays at its default."""

    kind: str  # order, mechanism, identity, cost or untestable
    text: str  # as printed in tables
    left: str = ""
    right: str = ""
    relation: str = ">"
    budget: int = 0
    suites: tuple[str, ...] = (ALL,)
    margin: float = 0.0
    bounds: tuple[float, float] = (0.0, 0.0)


class Finding(NamedTuple):
    """What the evidence says of one clause; `n` is 0 where there is no evidence yet."""

    clause: Clause
    n: int
    estimate: float
    low: float
    high: float
    p: float | None  # None where nothing is estimated by resampling


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What clauses are measured on, already limited to one tier.

    Attributes
    ----------
    accuracy
        One row an arm, budget and question (`lib.study.tables.per_question`).
    measures
        Rows as in `lib.study.records.MEASURE`.
    seed
        Of the bootstrap.
    """

    accuracy: pd.DataFrame
    measures: pd.DataFrame
    seed: int = 0

    @cached_property
    def arms(self) -> Mapping[str, np.ndarray]:
        """Places of each arm's rows in `accuracy`."""
        return self.accuracy.groupby("arm").indices

    @cached_property
    def measured(self) -> Mapping[str, np.ndarray]:
        """Places of each quantity's rows in `measures`."""
        return self.measures.groupby("measure").indices


def parse(rule: str) -> list[Clause]:
    """Read a rule; a clause with several budgets becomes one clause a budget.

    Raises
    ------
    ValueError
        Naming the clause that does not follow the grammar.
    """
    clauses = []
    for text in filter(None, (part.strip() for part in rule.split("#")[0].split(";"))):
        kind, *words = text.split()
        readers = {"order": _order, "mechanism": _mechanism, "identity": _identity, "cost": _cost}
        if kind == "untestable" and words:
            clauses.append(Clause(kind=kind, text=" ".join(words)))
            continue
        try:
            clauses += readers[kind](words)
        except (KeyError, ValueError, IndexError) as error:
            raise ValueError(f"rule has a clause that cannot be read: {text!r}") from error
    if not clauses:
        raise ValueError(f"rule has no clause: {rule!r}")
    return clauses


def _order(words: list[str]) -> list[Clause]:
    left, relation, right, at, *rest = words
    on = rest.index("on")
    budgets, (suites, margin_word, margin) = [int(word) for word in rest[:on]], rest[on + 1 :]
    if relation not in RELATIONS or at != "@" or margin_word != "margin" or not budgets or float(margin) < 0:
        raise ValueError(words)
    return [
        Clause(
            kind="order",
            text=f"{left} {relation} {right} @ {budget} on {suites} margin {margin}",
            left=left,
            right=right,
            relation=relation,
            budget=budget,
            suites=tuple(suites.split(",")),
            margin=float(margin),
        )
        for budget in budgets
    ]


def _mechanism(words: list[str]) -> list[Clause]:
    left, relation, right, margin_word, margin = words
    if relation not in RELATIONS or margin_word != "margin" or float(margin) < 0:
        raise ValueError(words)
    text = " ".join(words)
    return [
        Clause(kind="mechanism", text=text, left=left, right=right, relation=relation, margin=float(margin))
    ]


def _identity(words: list[str]) -> list[Clause]:
    (name,) = words
    return [Clause(kind="identity", text=f"{name} in every trial", left=name)]


def _cost(words: list[str]) -> list[Clause]:
    name, between, low, high = words
    if between != "between":
        raise ValueError(words)
    return [Clause(kind="cost", text=" ".join(words), left=name, bounds=(float(low), float(high)))]


def find(clause: Clause, evidence: Evidence) -> Finding:
    """Measure one clause.

    Raises
    ------
    ValueError
        When two arms were not run on the same questions: a paired comparison needs pairs.
    """
    if clause.kind == "cost":
        value = formula(clause.left)
        return Finding(clause, 1, value, value, value, None)
    if clause.kind == "identity":
        values = evidence.measures["value"].iloc[evidence.measured.get(clause.left, [])]
        share = float((values == 1).mean()) if len(values) else np.nan
        return Finding(clause, len(values), share, share, share, None)
    if clause.kind == "untestable":
        return Finding(clause, 0, np.nan, np.nan, np.nan, None)
    left, right = (_side(name, clause, evidence) for name in (clause.left, clause.right))
    if left.empty or right.empty:
        return Finding(clause, 0, np.nan, np.nan, np.nan, None)
    return _compare(left, right, clause, evidence.seed)


def _side(name: str, clause: Clause, evidence: Evidence) -> pd.DataFrame:
    """Return question_id, image_id, suite and value of one side of a comparison."""
    if clause.kind == "mechanism":
        return evidence.measures.iloc[evidence.measured.get(name, [])]
    rows = evidence.accuracy.iloc[evidence.arms.get(name, [])]
    if name not in ANY_BUDGET:
        rows = rows[rows["keep"] == clause.budget]
    if clause.suites != (ALL,):
        rows = rows[rows["suite"].isin(clause.suites)]
    return rows.rename(columns={"correct": "value"})


def _compare(left: pd.DataFrame, right: pd.DataFrame, clause: Clause, seed: int) -> Finding:
    pairs = left.merge(
        right[["question_id", "value"]], on="question_id", suffixes=("", "_right"), validate="1:1"
    )
    if not len(left) == len(right) == len(pairs):
        alone = (len(left) - len(pairs), len(right) - len(pairs))
        raise ValueError(
            f"records of {clause.text!r} are not paired: {alone[0]} and {alone[1]} questions stand alone"
        )

    def against(threshold: float) -> Interval:
        return paired_difference(
            pairs["value"].to_numpy(),
            pairs["value_right"].to_numpy(),
            pairs["image_id"].astype("category").cat.codes.to_numpy(),
            seed,
            threshold=threshold,
            weights=suite_weights(pairs["suite"]).to_numpy(),
        )

    thresholds = {">": (clause.margin,), ">=": (-clause.margin,), "~": (-clause.margin, clause.margin)}
    tests = [against(threshold) for threshold in thresholds[clause.relation]]
    first = tests[0]
    # Two bounds must both be cleared ("~"), so the larger p value counts.
    return Finding(clause, first.n, first.estimate, first.low, first.high, max(test.p for test in tests))


def slack(finding: Finding) -> float:
    """Say how far the estimate lies on the supported side of its bound; the weakest clause has the least."""
    clause, estimate = finding.clause, finding.estimate
    if clause.kind == "cost":
        low, high = clause.bounds
        return min(estimate - low, high - estimate) / max(abs(low), abs(high))
    if clause.kind == "identity":
        return estimate - 1
    if clause.relation == "~":
        return clause.margin - abs(estimate)
    return estimate - (clause.margin if clause.relation == ">" else -clause.margin)


def decide(finding: Finding, p_adjusted: float | None, level: float = 0.05) -> str:
    """Give the verdict of one clause: supported, not supported, inconclusive or not testable here.

    A difference counts when the whole 95 % interval and the adjusted p value agree.
    """
    clause = finding.clause
    if clause.kind == "untestable":
        return "not testable here"
    if finding.n == 0:
        return "inconclusive"
    if clause.kind in ("cost", "identity"):
        return "supported" if slack(finding) >= 0 else "not supported"
    low_bound = clause.margin if clause.relation == ">" else -clause.margin
    high_bound = clause.margin if clause.relation == "~" else np.inf
    if p_adjusted is None or p_adjusted >= level:
        return "inconclusive"
    if finding.low > low_bound and finding.high < high_bound:
        return "supported"
    return "not supported" if finding.high < low_bound or finding.low > high_bound else "inconclusive"
