"""Turn per-question records into the tables that figures, claims and readers use."""

from pathlib import Path

import numpy as np
import pandas as pd

from lib.files import whole
from lib.study.stats import mean_intervals

COLUMNS = ("model", "method", "keep", "suite", "n", "accuracy", "low", "high")
ALL = "all"  # the mean over suites, each suite weighing the same


def per_question(records: pd.DataFrame) -> pd.DataFrame:
    """Average the seeds of an arm, so that each arm has one row a question.

    Seeds and questions are different sources of spread: intervals here are over questions (by image) only.
    """
    keys = ["model", "arm", "keep", "suite", "question_id", "image_id"]
    return records.groupby(keys, as_index=False, sort=True, observed=True)["correct"].mean()


def suite_weights(suites: pd.Series) -> pd.Series:
    """Weigh questions so that every suite counts the same, however many questions it has."""
    return 1.0 / suites.map(suites.value_counts())


def accuracy_table(records: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Aggregate records to one row a model, arm, budget and suite.

    Parameters
    ----------
    records
        Rows as in `lib.study.records.ACCURACY`.
    seed
        Of the bootstrap.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`; `method` holds the arm label; suite "all" is the mean over suites. Sorted; numbers
        rounded to four places, so that a diff reads well.
    """
    return aggregate(per_question(records), seed)


def aggregate(answers: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Make `accuracy_table` of the rows that `per_question` gives.

    Arms that were asked the same questions are resampled together.
    """
    suites, names = pd.factorize(answers["suite"], sort=True)
    images = pd.factorize(answers["image_id"], sort=True)[0]
    correct = answers["correct"].to_numpy()
    # Places of each arm's rows, by the suites and pictures that it was asked about.
    alike: dict[tuple[bytes, bytes], dict[tuple, np.ndarray]] = {}
    for arm, places in answers.groupby(["model", "arm", "keep"], observed=True).indices.items():
        alike.setdefault((suites[places].tobytes(), images[places].tobytes()), {})[arm] = places
    rows = []
    for arms in alike.values():
        first = next(iter(arms.values()))
        asked, image = suites[first], images[first]
        values = np.stack([correct[places] for places in arms.values()])
        parts = [(names[suite], asked == suite, None) for suite in np.unique(asked)]
        parts.append((ALL, np.full(len(asked), True), suite_weights(pd.Series(asked)).to_numpy()))
        for suite, part, weights in parts:
            found = mean_intervals(values[:, part], image[part], seed, weights=weights)
            rows += [
                (*arm, suite, one.n, one.estimate, one.low, one.high)
                for arm, one in zip(arms, found, strict=True)
            ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values(list(COLUMNS[:4]), ignore_index=True).round({"accuracy": 4, "low": 4, "high": 4})


def retention(table: pd.DataFrame) -> pd.DataFrame:
    """Divide each accuracy by the unpruned one of its model and suite.

    Returns
    -------
    DataFrame
        model, method, keep, suite, retention. For suite "all" it is the mean of the suites' ratios, which is
        how both papers average, not the ratio of means.

    Raises
    ------
    ValueError
        When a model has no unpruned row to divide by.
    """
    keys = ["model", "suite"]
    full = table.loc[table["method"] == "none", [*keys, "accuracy"]].rename(columns={"accuracy": "full"})
    merged = table[table["suite"] != ALL].merge(full, on=keys, how="left")
    if merged["full"].isna().any():
        lacking = merged.loc[merged["full"].isna(), keys].iloc[0].to_dict()
        raise ValueError(f"table has no unpruned row (method none) for {lacking}")
    merged["retention"] = merged["accuracy"] / merged["full"]
    arms = ["model", "method", "keep"]
    mean = merged.groupby(arms, as_index=False)["retention"].mean().assign(suite=ALL)
    columns = [*arms, "suite", "retention"]
    return pd.concat([merged[columns], mean[columns]]).sort_values(columns[:4], ignore_index=True).round(4)


def write_table(table: pd.DataFrame, path: Path | str, float_format: str | None = None) -> Path:
    """Write a CSV table whole or not at all, with Unix line ends: the same bytes on every system."""
    path = Path(path)
    with whole(path) as part:
        table.to_csv(part, index=False, lineterminator="\n", float_format=float_format)
    return path
