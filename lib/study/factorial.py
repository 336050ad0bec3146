"""The cue study: every combination of the four cues at the same place and budget, and what each cue is worth.

Every effect is a weighted sum of the sixteen arms' answers to the same question, so its interval is that of a mean over
questions, clustered by image.
"""

from __future__ import annotations

from itertools import combinations, product
from math import comb

import numpy as np
import pandas as pd

from lib.study.stats import mean_interval
from lib.study.tables import ALL, per_question, suite_weights

CUES = ("text", "saliency", "spatial", "redundancy")
SHARE = "share of the {} cue"  # name of a cue's Shapley value among other effects
COALITIONS = tuple(product((0, 1), repeat=len(CUES)))
COLUMNS = (*CUES, "keep", "suite", "n", "accuracy", "low", "high")


def coalition(arm: str) -> tuple[int, ...] | None:
    """Read from an arm's label which cues are on; None where the arm is not part of the factorial.

    Examples: ``random`` is the empty one, ``multicue`` has all, ``multicue/text=False`` all but one.
    """
    name, _, changed = arm.partition("/")
    if name not in ("random", "multicue"):
        return None
    if name == "random":
        return None if changed else (0,) * len(CUES)
    off = {part.removesuffix("=False") for part in changed.split(",")} if changed else set()
    return None if off - set(CUES) else tuple(int(cue not in off) for cue in CUES)


def wide(records: pd.DataFrame) -> pd.DataFrame:
    """One row a budget and question, one column a coalition: the mean score over seeds.

    Raises
    ------
    ValueError
        When a budget lacks a combination, or two combinations were asked other questions.
    """
    rows = per_question(records)
    rows = rows.assign(coalition=rows["arm"].map(coalition))
    rows = rows[rows["coalition"].notna()]
    asked = rows.loc[rows["arm"].str.startswith("multicue"), "keep"].unique()
    rows = rows[rows["keep"].isin(asked)]  # random is run at more budgets than the factorial
    table = rows.pivot_table(
        index=["keep", "suite", "question_id", "image_id"], columns="coalition", values="correct"
    )
    missing = [cues for cues in COALITIONS if cues not in table.columns]
    if missing or table.empty:
        raise ValueError(f"records lack the combination {dict(zip(CUES, missing[0], strict=True))}")
    if table.isna().any(axis=None):
        keep = table.index[table.isna().any(axis=1)][0][0]
        raise ValueError(f"records at keep={keep} lack a combination or some of its questions")
    return table[list(COALITIONS)].reset_index()


def accuracy(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """`data/tables/factorial.csv`: one row a combination, budget and suite ("all" weighs every suite the same)."""
    rows = []
    for keep, suite, part, weights in _parts(table):
        for cues in COALITIONS:
            found = mean_interval(part[cues].to_numpy(), part["image_id"].to_numpy(), seed, weights=weights)
            rows.append((*cues, keep, suite, found.n, found.estimate, found.low, found.high))
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(list(COLUMNS[:6]), ignore_index=True)
    return frame.round({"accuracy": 4, "low": 4, "high": 4})


def contrasts() -> dict[tuple[str, str], np.ndarray]:
    """Weights over `COALITIONS` of every quantity: kind and name.

    "shapley": a cue's average gain over all orders in which the cues can be added (Shapley 1953); the four sum up to all
    cues minus none. "main": on minus off, mean over what else is on. "interaction": by how much one cue's gain grows when
    the other is on, mean over the rest.
    """
    size, found = len(CUES), {}
    array = np.array(COALITIONS)
    for place, cue in enumerate(CUES):
        others = array.sum(1) - array[:, place]
        sign = 2 * array[:, place] - 1
        weight = np.array([1 / (size * comb(size - 1, int(count))) for count in others])
        found["shapley", cue] = sign * weight
        found["main", cue] = sign / 2 ** (size - 1)
    for first, second in combinations(range(size), 2):
        sign = (2 * array[:, first] - 1) * (2 * array[:, second] - 1)
        found["interaction", f"{CUES[first]} x {CUES[second]}"] = sign / 2 ** (size - 2)
    return found


def effects(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Every quantity of `contrasts` with its interval: keep, suite, kind, cue, n, estimate, low, high, p."""
    rows = []
    for keep, suite, part, weights in _parts(table):
        answers = np.stack([part[cues].to_numpy() for cues in COALITIONS], 1)
        for (kind, cue), over in contrasts().items():
            found = mean_interval(answers @ over, part["image_id"].to_numpy(), seed, weights=weights)
            rows.append((keep, suite, kind, cue, found.n, found.estimate, found.low, found.high, found.p))
    names = ["keep", "suite", "kind", "cue", "n", "estimate", "low", "high", "p"]
    return pd.DataFrame(rows, columns=names)


def _parts(table: pd.DataFrame):
    for keep, mine in table.groupby("keep"):
        for suite, part in mine.groupby("suite"):
            yield keep, suite, part, None
        yield keep, ALL, mine, suite_weights(mine["suite"]).to_numpy()
