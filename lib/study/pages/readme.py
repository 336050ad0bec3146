"""Write answers and verdicts into README.md between its markers, or the verdicts to the terminal at the end of a run."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lib.files import whole
from lib.paths import CLAIMS, README, ROOT, TABLES
from lib.study.claims import NOT_RUN, VERDICTS, read_claims
from lib.study.pages import model_card
from lib.study.pages.front import answers
from lib.study.pages.n80_training import gate_sentence
from lib.study.scenes.gate import gate_table
from lib.study.wording import intervals, markdown

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
SEED_VERDICTS = "seed_verdicts.csv"


def agreement(path: Path | str = TABLES / SEED_VERDICTS) -> dict[str, str]:
    """Return in how many trainings a claim has its committed verdict ("2 of 3"), by id; {} where none is recorded."""
    if not Path(path).is_file():
        return {}
    table = pd.read_csv(path, keep_default_na=False).set_index("id")
    trainings = table.filter(regex="^seed ")
    same = trainings.eq(table["committed"], axis=0).sum(axis=1)
    return {claim: f"{count} of {trainings.shape[1]}" for claim, count in same.items()}


def verdict_table(claims: pd.DataFrame, trainings: Mapping[str, str] | None = None) -> str:
    """Return the register as a Markdown table: every verdict in the same type, links to the notebooks.

    Parameters
    ----------
    trainings
        As `agreement` gives it; claims that no trained model judges have none.
    """
    lines = [
        "| id | claim | published | verdict | in trainings | estimate [95 % interval] | n | tier |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in claims.to_dict("records"):
        cells = (
            f"[{row['id']}](notebooks/{row['notebook']}.ipynb)",
            row["claim"],
            row["published"],
            row["verdict"] or NOT_RUN,
            (trainings or {}).get(row["id"], ""),
            numbers(row),
            row["n"],
            row["tier"],
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([tally(claims), "", *lines])


def numbers(row: Mapping[str, str]) -> str:
    """Return a claim's estimate with its interval, where it has one."""
    if not row["estimate"]:
        return ""
    if row["low"] == row["high"]:  # arithmetic and identities have no interval
        return row["estimate"]
    return f"{row['estimate']} [{row['low']}, {row['high']}]"


def tally(claims: pd.DataFrame) -> str:
    """Return one sentence with the number of claims under each verdict."""
    counts = claims["verdict"].value_counts()
    parts = [f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts]
    if "" in counts:
        parts.append(f"{counts['']} {NOT_RUN}")
    return f"{len(claims)} claims: {', '.join(parts)}."


def block(
    claims: Path | str = CLAIMS,
    accuracy: Path | str = TABLES / "accuracy.csv",
    root: Path = ROOT,
) -> str:
    """Return what stands between README's markers: the verdicts, the three answers, then how good the embedded model is.

    Parameters
    ----------
    claims, accuracy
        The register and the accuracy table.
    root
        Repository whose other tables are told.
    """
    verdicts = verdict_table(read_claims(claims), agreement(root / "data" / "tables" / SEED_VERDICTS))
    parts = [verdicts, answers(root), gate_part(accuracy)]
    return "\n\n".join(part for part in parts if part)


def gate_part(accuracy: Path | str) -> str:
    """Tell how good the embedded model is from an accuracy table; "" where there is none."""
    if not Path(accuracy).is_file():
        return ""
    gate = gate_table(pd.read_csv(accuracy))
    shown = {
        "suite": gate["suite"],
        "n": gate["n"],
        "accuracy [95 % interval]": intervals(gate, ".3f", "accuracy"),
        "asked": gate["asked"].map("{:.2f}".format),
        "blind": gate["blind"].map("{:.3f}".format),
        "gate": gate["gate"],
    }
    told = gate_sentence(gate).removeprefix("**Answer.** ")
    return "\n\n".join(["## How good is the embedded model?", told, markdown(pd.DataFrame(shown))])


def with_results(text: str, results: str) -> str:
    """Return the text of a README with results between its markers.

    Raises
    ------
    ValueError
        When a marker is missing or occurs twice.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"README.md needs {BEGIN} and then {END}, once each")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n{results}\n{END}{after}"


def write_results(path: Path, results: str) -> bool:
    """Write results between a file's markers; return whether it changed."""
    old = path.read_text(encoding="utf-8")
    new = with_results(old, results)
    if new != old:
        with whole(path) as part:
            part.write_text(new, encoding="utf-8")
    return new != old


def write_readme() -> dict[Path, bool]:
    """Write the committed results into README.md and the model's card; return which of them changed."""
    written = {README: block(), model_card.PATH: model_card.block()}
    return {path: write_results(path, results) for path, results in written.items()}


def printed(claims: pd.DataFrame, width: int = 60) -> str:
    """Return the register as plain text for a terminal."""
    lines = [f"{'id':<5} {'verdict':<18} {'estimate [95 % interval]':<28} {'n':>5}  claim"]
    for row in claims.to_dict("records"):
        said = textwrap.shorten(row["claim"], width, placeholder=" ...")
        verdict = row["verdict"] or NOT_RUN
        lines.append(f"{row['id']:<5} {verdict:<18} {numbers(row):<28} {row['n']:>5}  {said}")
    return "\n".join([*lines, "", tally(claims)])


def show(folder: Path) -> str:
    """Return the verdicts of a run and where its outputs lie."""
    places = {"verdicts": "claims.csv", "figures": "figures", "tables": "tables", "records": "records"}
    places["executed notebooks"] = "notebooks"
    lines = [printed(read_claims(folder / "claims.csv")), ""]
    for what, name in places.items():
        if (folder / name).exists():
            path = (folder / name).resolve()
            lines.append(f"{what:<19}{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")
    return "\n".join(lines)
