"""Say where things lie, from this file's own place: no working directory, no parent search."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
FIGURES = ROOT / "figures"
NOTEBOOKS = ROOT / "notebooks"
MODELS = DATA / "models"
MODEL = MODELS / "scenes"  # the shipped one
SEEDS = DATA / "seeds"  # records and cards of further trainings, by seed
PUBLISHED = DATA / "published"
RECORDS = DATA / "records"
RUNS = DATA / "runs"
SWEEPS = DATA / "sweeps"
TABLES = DATA / "tables"
CLAIMS = DATA / "claims.csv"
README = ROOT / "README.md"
BY_HAND = RUNS / "by_hand"  # of notebooks that are run in Jupyter or by a test; not committed
EVIDENCE = "committed"  # the `output` that means the committed places


@dataclass(frozen=True, kw_only=True)
class Places:
    """Folders and files that one run writes to.

    Attributes
    ----------
    records, tables, figures
        Folders for per-question parquet files, aggregated CSV files and drawn figures.
    claims
        The claim register with the columns that code fills.
    """

    records: Path
    tables: Path
    figures: Path
    claims: Path


def user_path(path: str | Path) -> Path:
    """Return the path that a user wrote, ``~`` and ``~NAME`` being home folders, as in a shell.

    A shell leaves ``--out=~/x``, ``-p output "~/x"`` and whatever stands in a file to the program.

    Raises
    ------
    ValueError
        On ``~NAME`` where no such user has a home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: no home folder is known for it; write the whole path") from error


def places(output: str = "") -> Places:
    """Return where a notebook's run writes.

    Parameters
    ----------
    output
        The notebook parameter of that name: a folder below ROOT (or an absolute one, or one below ``~``), `EVIDENCE` for the
        committed places, or ``""`` for `BY_HAND`. `lib.study.sweep.resolve` alone gives out `EVIDENCE`, and to the committed
        parameters alone, so a notebook that is run by hand or tested never writes over committed evidence.

    Returns
    -------
    Places
        The folders exist after the call.
    """
    if output == EVIDENCE:
        found = Places(records=RECORDS, tables=TABLES, figures=FIGURES, claims=CLAIMS)
    else:
        base = ROOT / user_path(
            output or BY_HAND
        )  # an absolute one replaces ROOT, which is what pathlib does
        found = Places(
            records=base / "records",
            tables=base / "tables",
            figures=base / "figures",
            claims=base / "claims.csv",
        )
    for folder in (found.records, found.tables, found.figures):
        folder.mkdir(parents=True, exist_ok=True)
    return found
