"""Say what records show: claim sections, clause tables and sentences for notebooks; every number is computed.

Sentences are built so that they hold whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from IPython.display import Markdown, display

from lib.study import records
from lib.study.claims import NOT_RUN, VERDICTS
from lib.study.evidence import Study
from lib.study.pages.captions import CAPTIONS
from lib.study.pages.looks import theme
from lib.study.wording import interval, listing

WITHOUT_INTERVALS = ("31_ranks", "30_overlap")  # figures of ranks, and of means in cells


def start() -> None:
    """Set the look of figures and of printed frames; call it once in a notebook."""
    theme()
    for name, value in (("max_colwidth", None), ("width", 250), ("max_rows", 100)):
        pd.set_option(f"display.{name}", value)


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
    told = f"{interval(estimate, low, high)}, n = {row['n']}"
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
