"""Hold every method against a slow restatement of its released rule and tell where they part.

``python -m lib parity`` writes the rows to ``data/tables/parity.csv``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from lib.paths import TABLES
from lib.pruning import methods
from lib.study.parity import (
    adaptprune,
    cdpruner,
    cls,
    dart,
    divprune,
    fastv,
    holov,
    pyramiddrop,
    sparsevlm,
    tome,
    trim,
    visionzip,
    vispruner,
)
from lib.study.parity.trial import SEEDS, Case, parting

PATH = TABLES / "parity.csv"
COLUMNS = ("method", "setting", "release", "trials", "equal", "declared", "parts_at", "settled_by")
CASES: tuple[Case, ...] = (
    *adaptprune.CASES,
    *cdpruner.CASES,
    *cls.CASES,
    *dart.CASES,
    *divprune.CASES,
    *fastv.CASES,
    *holov.CASES,
    *pyramiddrop.CASES,
    *sparsevlm.CASES,
    *tome.CASES,
    *trim.CASES,
    *visionzip.CASES,
    *vispruner.CASES,
)


def compare(case: Case, seeds: int = SEEDS) -> dict[str, object]:
    """One row of the table: how many trials are equal, how many as declared, and where the first other one parts."""
    found: Counter[str] = Counter()
    for draw in case.draws(seeds):
        released = case.rule(draw)
        place = parting(case.ask(draw, case), released)
        found["declared" if place == "none" and released.declared else place] += 1
    apart = [place for place in found if place not in ("none", "declared")]
    return {
        "method": case.method,
        "setting": case.setting,
        "release": case.release,
        "trials": found.total(),
        "equal": found["none"],
        "declared": found["declared"],
        "parts_at": apart[0] if apart else "none",
        "settled_by": case.settled,
    }


def table(seeds: int = SEEDS) -> pd.DataFrame:
    """All cases, columns `COLUMNS`, in the order of `methods.NAMES`."""
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    cases = sorted(CASES, key=lambda case: methods.NAMES.index(case.method))
    rows = [compare(case, seeds) for case in tqdm(cases, desc="parity", leave=False)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def read(path: Path = PATH) -> pd.DataFrame:
    """The committed table."""
    if not path.is_file():
        raise ValueError(f"{path.name} does not exist; make it: python -m lib parity")
    return pd.read_csv(path, keep_default_na=False)


def rows(path: Path = PATH) -> list[dict[str, str]]:
    """`methods.rows` with one more column, "parity": what the committed table says of the method, in words."""
    told = read(path).groupby("method", sort=False)
    words = {name: "; ".join(_words(row) for row in group.itertuples()) for name, group in told}
    return [
        {**row, "parity": words.get(row["name"], "no release to hold it against")} for row in methods.rows()
    ]


def _words(row) -> str:
    apart = row.trials - row.equal - row.declared
    counts = [
        f"{row.equal} of {row.trials} trials equal",
        f"{row.declared} as declared" if row.declared else "",
        f"{apart} part at {row.parts_at}" if apart else "",
    ]
    return (f"{row.setting}: " if row.setting else "") + ", ".join(filter(None, counts))
