"""What one page reads: records, the tables made of them and the verdicts of the register."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lib.paths import Places
from lib.study import records
from lib.study.claims import evidence_by_tier, judge_by_tier, read_claims
from lib.study.rules import Evidence
from lib.study.tables import aggregate, per_question, retention, write_table

SOURCES = ("recorded", "live")


@dataclass(frozen=True, kw_only=True)
class Study:
    """What one notebook reads: records, the tables made of them and the verdicts.

    Attributes
    ----------
    folder
        Where the records lie.
    accuracy, measures
        Rows as in `lib.study.records.ACCURACY` and `MEASURE`.
    table
        `lib.study.tables.accuracy_table` of the embedded model.
    claims, clauses
        As `lib.study.claims.judge_all` gives them.
    seed
        Of every bootstrap.
    """

    folder: Path
    accuracy: pd.DataFrame
    measures: pd.DataFrame
    table: pd.DataFrame
    claims: pd.DataFrame
    clauses: pd.DataFrame
    evidence: Evidence
    seed: int

    @property
    def tokens(self) -> int:
        """Visual tokens of an unpruned image."""
        return int(self.accuracy.loc[self.accuracy["method"] == "none", "keep"].iloc[0])

    @property
    def budgets(self) -> list[int]:
        """Budgets at which the tightest-to-widest methods were run, descending."""
        rows = self.accuracy[self.accuracy["arm"] == "desap"]
        return sorted({int(keep) for keep in rows["keep"]}, reverse=True)


def check_parameters(source: str, questions: int, seed: int) -> None:
    """Refuse values that the parameters cell of a notebook must not hold.

    Raises
    ------
    ValueError
        Naming the parameter and the value.
    """
    if source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")
    for name, value in (("questions", questions), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} must be an integer of at least 0, got {value!r}")
    if questions == 1:
        raise ValueError("questions must be 0 (all) or at least 2, as intervals are over pictures; got 1")


def read_study(folder: Path | str, seed: int = 0) -> Study:
    """Read a folder of records and judge the register on it.

    Raises
    ------
    ValueError
        When the folder holds no answer of the embedded model: there is nothing to show.
    """
    folder = Path(folder)
    accuracy, measures = records.read_folder(folder), records.read_folder(folder, "measure")
    if accuracy.empty:
        raise ValueError(f"{folder.name}: no accuracy records; run this notebook with source live first")
    return _study(folder, accuracy, measures, read_claims(), seed)


def study_of(accuracy: pd.DataFrame, seed: int = 0) -> Study:
    """Make a study of some rows at hand, without a folder, measures or claims, for pages that judge none."""
    return _study(Path(), accuracy, records.empty("measure"), read_claims().iloc[:0], seed)


def _study(
    folder: Path,
    accuracy: pd.DataFrame,
    measures: pd.DataFrame,
    register: pd.DataFrame,
    seed: int,
) -> Study:
    answers = per_question(accuracy)
    tiers = evidence_by_tier(answers, measures, seed)
    claims, clauses = judge_by_tier(register, tiers)
    return Study(
        folder=folder,
        accuracy=accuracy,
        measures=measures,
        table=aggregate(answers, seed),
        claims=claims,
        clauses=clauses,
        evidence=tiers["trained-small"],
        seed=seed,
    )


def write_tables(study: Study, where: Places) -> None:
    """Write accuracy.csv and retention.csv of all records of a run."""
    write_table(study.table, where.tables / "accuracy.csv")
    if "none" in set(study.table["method"]):
        write_table(retention(study.table), where.tables / "retention.csv")
