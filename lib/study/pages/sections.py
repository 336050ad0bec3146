"""Say what records show: claim sections, clause tables and sentences for notebooks; every number is computed.

Sentences are built so that they hold whatever the numbers are.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from IPython.display import Markdown, display

from lib.paths import Places
from lib.study import records
from lib.study.claims import NOT_RUN, VERDICTS, evidence_by_tier, judge_by_tier, read_claims
from lib.study.pages.captions import CAPTIONS
from lib.study.pages.looks import theme
from lib.study.rules import Evidence
from lib.study.tables import aggregate, per_question, retention, write_table

WITHOUT_INTERVALS = ("31_ranks", "30_overlap")  # figures of ranks, and of means in cells
SOURCES = ("recorded", "live")
PACKAGES = ("torch", "transformers", "numpy", "pandas")


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


def start() -> None:
    """Set the look of figures and of printed frames; call it once in a notebook."""
    theme()
    for name, value in (("max_colwidth", None), ("width", 250), ("max_rows", 100)):
        pd.set_option(f"display.{name}", value)


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


def say(text: str) -> None:
    """Show Markdown below a code cell."""
    display(Markdown(text))


def origin(study: Study) -> str:
    """Say in one paragraph which records a page is made of."""
    return origin_of(study, sorted(study.folder.rglob("*.parquet")))


def origin_of(study: Study, paths: Sequence[Path]) -> str:
    """Say in one paragraph what a study is made of, its rows coming from these record files."""
    told = [records.read_provenance(path) for path in paths]
    weights = sorted({str(facts["weights"]) for facts in told if "weights" in facts})
    made = ", ".join(sorted({f"torch {facts['versions']['torch']}" for facts in told}))
    rows = study.accuracy
    return (
        f"{len(told)} record files with {len(rows):,} answers: {rows['arm'].nunique()} arms, "
        f"{rows['image_id'].nunique()} pictures, {rows['question_id'].nunique():,} questions an arm in "
        f"{rows['suite'].nunique()} suites ({', '.join(sorted(set(rows['suite'])))}); "
        f"weights {', '.join(weights) or 'not stated'}; {made}."
    )


def caption(study: Study, name: str, rows: pd.DataFrame | None = None) -> str:
    """Put a figure's caption together with what its intervals are of: all answers, or the measured `rows` it draws."""
    rows = study.accuracy if rows is None else rows
    spread = "" if name in WITHOUT_INTERVALS else "Intervals: 95 %, bootstrap over "
    return (
        f"*{CAPTIONS[name]} {spread}{rows['image_id'].nunique()} pictures; "
        f"{rows['question_id'].nunique():,} questions an arm. The plotted numbers lie beside the figure as "
        f"`{name}.csv`.*"
    )


def strip_caption(claims: pd.DataFrame) -> str:
    """Describe the strip of verdicts."""
    return (
        f"*One square for each of the {len(claims)} claims, in the order of the register. Colour and letter "
        "both name the verdict; all verdicts have the same size.*"
    )


def versions() -> str:
    """Return the footer: what this page was run with."""
    named = [f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
    return " | ".join(named)


def listing(words: Iterable[str]) -> str:
    """Join words as English does: "a, b and c"."""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def answer(study: Study, ids: Sequence[str]) -> str:
    """Give one sentence: how many of these claims got which verdict."""
    mine = study.claims[study.claims["id"].isin(ids)]
    parts = []
    for verdict in (*VERDICTS, ""):
        named = mine.loc[mine["verdict"] == verdict, "id"].tolist()
        if named:
            parts.append(f"{len(named)} {verdict or NOT_RUN} ({', '.join(named)})")
    return f"**Answer.** Of {len(mine)} claims judged on this page: {listing(parts)}."


def clause_table(study: Study, claim: str) -> pd.DataFrame:
    """List the clauses of a claim with what was found, as text of fixed width."""
    return clause_frame(study.clauses[study.clauses["id"] == claim]).drop(columns="id")


def clause_frame(clauses: pd.DataFrame) -> pd.DataFrame:
    """Write clauses as a reader wants them: three decimals for differences, four digits for costs."""
    small = clauses["estimate"].abs() < 100
    shown = clauses[["id", "clause", "n"]].copy()
    for name in ("estimate", "low", "high"):
        # adding zero turns a rounded minus zero into zero
        shown[name] = [
            "" if pd.isna(value) else f"{round(value, 3) + 0.0:.3f}" if plain else f"{value:.4g}"
            for value, plain in zip(clauses[name], small, strict=True)
        ]
    shown["p (raw)"] = [
        "" if pd.isna(p) else "<0.001" if p < 0.001 else f"{p:.3f}" for p in clauses["p"].astype(float)
    ]
    run = clauses["n"].gt(0) | clauses["verdict"].eq("not testable here")
    return shown.assign(verdict=clauses["verdict"].where(run, NOT_RUN)).reset_index(drop=True)


def sentence(study: Study, claim: str) -> str:
    """State the verdict of a claim with the numbers of its weakest clause."""
    row = study.claims.set_index("id").loc[claim]
    verdict = row["verdict"] or NOT_RUN
    if not row["estimate"]:
        return f"**{claim}: {verdict}.**"
    estimate, low, high = (float(row[name]) for name in ("estimate", "low", "high"))
    if row["kind"] in ("cost", "identity"):
        return f"**{claim}: {verdict}.** Weakest clause: {estimate:.4g} (n = {row['n']}, tier {row['tier']})."
    told = f"{estimate:+.3f} [{low:+.3f}, {high:+.3f}], n = {row['n']}"
    extra = ""
    if verdict == "inconclusive":
        extra = f" The interval is {(high - low) / 2:.3f} to each side: a smaller effect could not be seen."
    return f"**{claim}: {verdict}.** Weakest clause: {told}, tier {row['tier']}.{extra}"


def show_claims(study: Study, *ids: str) -> None:
    """Show a section a claim: what was claimed, what counts, what was found, the verdict."""
    for claim in ids:
        row = study.claims.set_index("id").loc[claim]
        rule, _, note = (part.strip() for part in row["rule"].partition("#"))
        published = f"Published: {row['published']}. Tier: {row['tier']}." + (
            f" Note: {note}." if note else ""
        )
        say(f"### {claim} · {row['claim']}\n\n{published}\n\nWhat counts: `{rule}`")
        display(clause_table(study, claim))
        say(sentence(study, claim))


def untestable(claims: pd.DataFrame) -> pd.DataFrame:
    """List the claims that nothing here can judge, with the reason given in the register."""
    rows = claims[claims["rule"].str.startswith("untestable")]
    reason = rows["rule"].str.removeprefix("untestable").str.split("#").str[0].str.strip()
    return rows[["id", "paper", "claim"]].assign(why=reason).reset_index(drop=True)


def verdict_frame(claims: pd.DataFrame) -> pd.DataFrame:
    """Return the register's readable columns."""
    shown = claims[["id", "paper", "claim", "kind", "tier", "n", "estimate", "low", "high", "verdict"]]
    return shown.assign(verdict=shown["verdict"].replace("", NOT_RUN)).reset_index(drop=True)
