"""Tables: columns, the mean over suites, retention."""

import pandas as pd
import pytest

from lib.study import tables
from lib.study.stats import mean_interval
from testkit.frames import accuracy_rows


@pytest.fixture(scope="module")
def records():
    frames = [
        accuracy_rows("none", 144, 0.9),
        accuracy_rows("desap", 16, 0.6),
        accuracy_rows("random", 16, 0.2, seed=0),
        accuracy_rows("random", 16, 0.4, seed=1),
        accuracy_rows("cls", 16, 0.5, questions=40, suites=("exists",)),
        accuracy_rows("cls", 16, 0.25, questions=120, suites=("read",)),
    ]
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def table(records):
    return tables.accuracy_table(records)


def _value(frame, column, arm, suite):
    return frame[(frame["method"] == arm) & (frame["suite"] == suite)][column].item()


def test_columns_and_order(table):
    assert tuple(table.columns) == tables.COLUMNS
    assert table.equals(table.sort_values(["model", "method", "keep", "suite"], ignore_index=True))
    assert (table["low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["high"]).all()


def test_each_row_is_the_interval_of_its_own_questions(records, table):
    for arm, suite in (("none", "read"), ("desap", "exists"), ("cls", "exists"), ("cls", "read")):
        mine = records[(records["arm"] == arm) & (records["suite"] == suite)]
        found = mean_interval(mine["correct"].to_numpy(), mine["image_id"].to_numpy().astype(str))
        numbers = [_value(table, column, arm, suite) for column in ("n", "accuracy", "low", "high")]
        assert numbers == [found.n, *(round(value, 4) for value in found[:3])]


def test_seeds_are_averaged_not_counted(table):
    assert _value(table, "n", "random", "exists") == 120
    assert _value(table, "accuracy", "random", "exists") == pytest.approx(0.3, abs=0.01)


def test_all_weighs_suites_the_same(table):
    assert _value(table, "accuracy", "cls", "all") == pytest.approx((0.5 + 0.25) / 2)
    assert _value(table, "n", "cls", "all") == 160


def test_retention_is_the_mean_of_ratios(table):
    kept = tables.retention(table)
    ratios = [_value(kept, "retention", "cls", suite) for suite in ("exists", "read")]
    assert _value(kept, "retention", "cls", "all") == pytest.approx(sum(ratios) / 2, abs=1e-4)
    assert _value(kept, "retention", "none", "all") == 1.0
    with pytest.raises(ValueError, match="no unpruned row"):
        tables.retention(table[table["method"] != "none"])


def test_written_bytes_do_not_depend_on_the_system(table, tmp_path):
    path = tables.write_table(table, tmp_path / "deep" / "accuracy.csv")
    assert b"\r" not in path.read_bytes()
    assert pd.read_csv(path).equals(table)
