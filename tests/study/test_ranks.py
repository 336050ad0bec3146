"""Ranks: known orders, ties, critical difference of the literature, refused input."""

import numpy as np
import pandas as pd
import pytest

from lib.study import ranks


def made(scores, pictures=50, keep=16):
    """One question a picture; `scores(arm index, picture)`."""
    rows = [
        {"model": "m", "arm": arm, "keep": keep, "suite": "read", "question_id": str(i), "image_id": str(i),
         "correct": scores(place, i)}
        for place, arm in enumerate(("desap", "cls", "random", "fastv"))
        for i in range(pictures)
    ]  # fmt: skip
    return pd.DataFrame(rows)


ARMS = ("desap", "cls", "random", "fastv")


def test_a_clear_order_is_found():
    found = ranks.ranking(made(lambda place, i: 1.0 - place / 4), ARMS, 16)
    assert found.ranks.to_dict() == {"desap": 1.0, "cls": 2.0, "random": 3.0, "fastv": 4.0}
    assert found.p < 1e-6
    assert ranks.groups(found.ranks, found.critical) == []


def test_critical_difference_is_the_published_one():
    # Demsar 2006: q for four methods is 2.569
    found = ranks.ranking(made(lambda place, i: 1.0), ARMS, 16)
    assert found.critical == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 50)), rel=1e-3)
    assert found.p == 1.0
    assert set(found.ranks) == {2.5}
    assert ranks.groups(found.ranks, found.critical) == [(0, 3)]


def test_groups_are_the_longest_runs():
    series = pd.Series([1.0, 1.4, 1.9, 3.0, 3.1], index=list("abcde"))
    assert ranks.groups(series, 0.6) == [(0, 1), (1, 2), (3, 4)]


def test_too_few_or_unequal_arms_are_refused():
    rows = made(lambda place, i: 1.0)
    with pytest.raises(ValueError, match="three or more"):
        ranks.ranking(rows, ARMS[:2], 16)
    with pytest.raises(ValueError, match="different pictures"):
        ranks.ranking(rows.drop(index=rows.index[3]), ARMS, 16)
