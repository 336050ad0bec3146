"""Judge the published claims by the rules of `data/claims.csv`, which were written before any record existed.

Code writes the columns of `FILLED` and nothing else. What a tier of evidence cannot carry is refused.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from lib.paths import CLAIMS
from lib.study.cards import trained
from lib.study.records import empty, read_folder
from lib.study.rules import Clause, Evidence, Finding, decide, find, parse, slack
from lib.study.stats import holm
from lib.study.tables import per_question, write_table

WRITTEN = ("id", "paper", "claim", "published", "kind", "tier", "rule")  # by hand, before the run
FILLED = ("n", "estimate", "low", "high", "verdict")  # by code, after it
COLUMNS = (*WRITTEN, *FILLED, "notebook")
VERDICTS = ("supported", "partly supported", "not supported", "inconclusive", "not testable here")
NOT_RUN = "not run yet"  # shown where a claim has no verdict
# What each tier of evidence can judge; a level needs the paper's own model and benchmark.
CARRIES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "paper": frozenset({"order", "level", "cost", "mechanism", "identity"}),
        "architecture": frozenset({"cost"}),
        "trained-small": frozenset({"order", "mechanism"}),
        "constructed": frozenset({"identity"}),
    }
)


def read_claims(path: Path | str = CLAIMS) -> pd.DataFrame:
    """Read the register and check every row: columns, ids, tiers, rules, verdict words.

    Raises
    ------
    ValueError
        Naming the file, the claim and the fault.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path.name}: no such claim register in {path.parent}")
    register = pd.read_csv(path, dtype=str, keep_default_na=False)
    if tuple(register.columns) != COLUMNS:
        raise ValueError(
            f"{path.name}: columns must be {', '.join(COLUMNS)}; got {', '.join(register.columns)}"
        )
    if register["id"].duplicated().any():
        raise ValueError(
            f"{path.name}: id {register.loc[register['id'].duplicated(), 'id'].iloc[0]} occurs twice"
        )
    for row in register.to_dict("records"):
        if row["verdict"] and row["verdict"] not in VERDICTS:
            raise ValueError(
                f"{path.name}: {row['id']} has verdict {row['verdict']!r}; known: {', '.join(VERDICTS)}"
            )
        checked_clauses(row["id"], row["rule"], row["kind"], row["tier"])
    return register


def checked_clauses(name: str, rule: str, kind: str, tier: str) -> list[Clause]:
    """Parse a rule and refuse what its tier cannot carry.

    Raises
    ------
    ValueError
        Unknown tier; a kind the tier cannot judge; a clause of another kind than the claim's.
    """
    if tier not in CARRIES:
        raise ValueError(f"{name}: tier {tier!r} is unknown; known: {', '.join(CARRIES)}")
    clauses = parse(rule)
    if all(clause.kind == "untestable" for clause in clauses):
        return clauses
    if kind not in CARRIES[tier]:
        raise ValueError(f"{name}: evidence of tier {tier} cannot carry a verdict on a claim of kind {kind}")
    strange = [clause.kind for clause in clauses if clause.kind != kind]
    if strange:
        raise ValueError(f"{name}: a claim of kind {kind} has a clause of kind {strange[0]}")
    return clauses


def evidence_of_tier(tier: str, accuracy: pd.DataFrame, measures: pd.DataFrame, seed: int = 0) -> Evidence:
    """Keep the rows whose model belongs to a tier; raise as `evidence_by_tier` does."""
    return evidence_by_tier(per_question(accuracy), measures, seed)[tier]


def evidence_by_tier(answers: pd.DataFrame, measures: pd.DataFrame, seed: int = 0) -> dict[str, Evidence]:
    """Part rows by the tier that their model belongs to; every tier of `CARRIES` has its evidence, if none.

    Parameters
    ----------
    answers
        As `lib.study.tables.per_question` gives them.
    measures
        Rows as in `lib.study.records.MEASURE`.
    seed
        Of the bootstrap.

    Raises
    ------
    ValueError
        When a record names a model of no tier, having neither a card nor been constructed: what it can show is not
        declared. When several models of the tier answered: their answers are no pairs.
    """
    models = {tier: [] for tier in CARRIES} | {"trained-small": trained(), "constructed": ["constructed"]}
    known = [name for mine in models.values() for name in mine]
    unknown = sorted({*answers["model"].unique(), *measures["model"].unique()} - set(known))
    if unknown:
        raise ValueError(
            f"records name the model {unknown[0]!r}, which has no tier; known: {', '.join(known)}"
        )
    for mine in models.values():
        several = sorted(set(answers["model"].unique()) & set(mine))
        if len(several) > 1:
            raise ValueError(f"records hold answers of {' and '.join(several)}; judge each model alone")
    return {
        tier: Evidence(
            accuracy=answers[answers["model"].isin(mine)].reset_index(drop=True),
            measures=measures[measures["model"].isin(mine)],
            seed=seed,
        )
        for tier, mine in models.items()
    }


def judge(
    rule: str,
    tier: str,
    records: pd.DataFrame,
    kind: str = "order",
    measures: pd.DataFrame | None = None,
    seed: int = 0,
) -> str:
    """Judge one rule alone, as a family of its own; "" where no clause has evidence yet.

    Parameters
    ----------
    rule, tier, kind
        As in the columns of the register.
    records, measures
        Rows as in `lib.study.records.ACCURACY` and `MEASURE`.
    seed
        Of the bootstrap.
    """
    clauses = checked_clauses("rule", rule, kind, tier)
    nothing = empty("measure") if measures is None else measures
    evidence = evidence_of_tier(tier, records, nothing, seed)
    findings = [find(clause, evidence) for clause in clauses]
    return combine(findings, _clause_verdicts(findings))


def _clause_verdicts(findings: Sequence[Finding]) -> list[str]:
    """Decide the clauses of one family, with Holm's correction over all that have a p value."""
    tested = [place for place, finding in enumerate(findings) if finding.p is not None]
    adjusted = dict(zip(tested, holm([findings[place].p for place in tested]), strict=True)) if tested else {}
    return [decide(finding, adjusted.get(place)) for place, finding in enumerate(findings)]


def combine(findings: Sequence[Finding], verdicts: Sequence[str]) -> str:
    """Combine clause verdicts: all supported, some, none but some against, or nothing decided."""
    if all(verdict == "not testable here" for verdict in verdicts):
        return "not testable here"
    if not any(finding.n for finding in findings):
        return ""
    if all(verdict == "supported" for verdict in verdicts):
        return "supported"
    if "supported" in verdicts:
        return "partly supported"
    return "not supported" if "not supported" in verdicts else "inconclusive"


def judge_all(
    register: pd.DataFrame, accuracy: pd.DataFrame, measures: pd.DataFrame, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judge every claim on some records: `judge_by_tier` of what they hold."""
    return judge_by_tier(register, evidence_by_tier(per_question(accuracy), measures, seed))


def judge_by_tier(register: pd.DataFrame, tiers: Mapping[str, Evidence]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judge every claim; a family for Holm's correction is all clauses about one paper.

    Returns
    -------
    claims
        The register with `FILLED` filled. Its numbers are those of each claim's weakest clause.
    clauses
        One row a clause: id, clause, n, estimate, low, high, p, verdict.
    """
    claims, rows = register.copy(), []
    for _, family in register.groupby("paper", sort=False):
        owners, findings = [], []
        for row in family.to_dict("records"):
            for clause in checked_clauses(row["id"], row["rule"], row["kind"], row["tier"]):
                owners.append(row["id"])
                findings.append(find(clause, tiers[row["tier"]]))
        verdicts = _clause_verdicts(findings)
        rows += [
            (owner, found.clause.text, found.n, found.estimate, found.low, found.high, found.p, verdict)
            for owner, found, verdict in zip(owners, findings, verdicts, strict=True)
        ]
        for claim in family["id"]:
            mine = [place for place, owner in enumerate(owners) if owner == claim]
            filled = _summary([findings[place] for place in mine], [verdicts[place] for place in mine])
            claims.loc[claims["id"] == claim, list(FILLED)] = filled
    columns = ["id", "clause", "n", "estimate", "low", "high", "p", "verdict"]
    return claims, pd.DataFrame(rows, columns=columns).round(4)


def _summary(findings: Sequence[Finding], verdicts: Sequence[str]) -> list[str]:
    verdict = combine(findings, verdicts)
    known = [finding for finding in findings if finding.n]
    if not known:
        return ["0" if verdict else "", "", "", "", verdict]
    weakest = min(known, key=slack)
    numbers = [f"{value:.4g}" if weakest.clause.kind == "cost" else f"{value:.4f}" for value in weakest[2:5]]
    return [str(weakest.n), *numbers, verdict]


def write_claims(claims: pd.DataFrame, path: Path | str) -> Path:
    """Write a judged register.

    Raises
    ------
    ValueError
        When a hand-written column differs from the committed register: code never writes a rule.
    """
    path = Path(path)
    kept = [*WRITTEN, "notebook"]
    if not claims[kept].equals(read_claims()[kept]):
        raise ValueError(f"{path.name}: a column written before the run ({', '.join(kept)}) was changed")
    return write_table(claims, path)


def update(records: Path | str, out: Path | str, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judge the committed register on a folder of records, write it, return both tables of `judge_all`."""
    claims, clauses = judge_all(read_claims(), read_folder(records), read_folder(records, "measure"), seed)
    write_claims(claims, out)
    return claims, clauses
