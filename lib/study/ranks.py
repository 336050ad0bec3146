"""Rank methods against each other on the same pictures, with the difference that counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from lib.study.tables import per_question


class Ranking(NamedTuple):
    """Mean ranks (1 is best) of methods over pictures.

    Attributes
    ----------
    ranks : method to mean rank, best first.
    critical : Nemenyi's critical difference at 5 %: methods nearer than this are not told apart.
    p : of Friedman's test that all methods rank alike.
    pictures : blocks.
    """

    ranks: pd.Series
    critical: float
    p: float
    pictures: int


def ranking(records: pd.DataFrame, arms: Sequence[str], keep: int) -> Ranking:
    """Rank arms by their mean score on each picture, ties sharing the mean rank.

    Raises
    ------
    ValueError
        When fewer than three arms were run at this budget, or they were asked other pictures.

    Source: Demsar 2006 (JMLR 7), Friedman's test with Nemenyi's post-hoc comparison.
    """
    rows = per_question(records[records["keep"] == keep])
    rows = rows[rows["arm"].isin(arms)]
    table = rows.pivot_table(index="image_id", columns="arm", values="correct")
    if table.shape[1] < 3:
        raise ValueError(f"arms at keep={keep} must be three or more, got {sorted(table.columns)}")
    if table.isna().any(axis=None):
        raise ValueError(f"arms at keep={keep} were asked different pictures")
    placed = rankdata(-table.to_numpy(), axis=1)
    pictures, methods = table.shape
    width = studentized_range.ppf(0.95, methods, np.inf) / np.sqrt(2)
    critical = float(width * np.sqrt(methods * (methods + 1) / (6 * pictures)))
    alike = (table.to_numpy() == table.to_numpy()[:, :1]).all()  # Friedman's statistic is 0 / 0 there
    p = 1.0 if alike else float(friedmanchisquare(*table.to_numpy().T).pvalue)
    return Ranking(pd.Series(placed.mean(0), table.columns).sort_values(kind="stable"), critical, p, pictures)


def groups(ranks: pd.Series, critical: float) -> list[tuple[int, int]]:
    """Longest runs of neighbours, as first and last place, whose ends are nearer than the critical difference."""
    values, found = ranks.to_numpy(), []
    for first in range(len(values)):
        last = int(np.searchsorted(values, values[first] + critical, side="left")) - 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
