"""Words for numbers: intervals, stars, tables in the order of their rows, lists."""

import pandas as pd

from lib.study import wording

ROWS = pd.DataFrame(
    {
        "label": ["b", "b", "a"],
        "keep": [48, 16, 48],
        "estimate": [0.1, -0.25, 0.0],
        "low": [0.05, -0.5, -0.1],
        "high": [0.2, 0.0, 0.1],
        "p": [0.01, 0.05, 1.0],
    }
)


def test_intervals_are_worded_in_one_way():
    assert wording.interval(0.5, 0.25, 1, ".2f") == "0.50 [0.25, 1.00]"
    assert wording.row_interval(ROWS.iloc[0]) == "+0.100 [+0.050, +0.200]"
    assert wording.intervals(ROWS, ".0%")[1] == "-25% [-50%, 0%]"
    assert wording.starred(ROWS, ".1f", blank=" ") == [
        "0.1 [0.1, 0.2]*",
        "-0.2 [-0.5, 0.0] ",
        "0.0 [-0.1, 0.1] ",
    ]


def test_a_wide_table_keeps_the_order_of_its_rows():
    table = wording.wide(ROWS, ["x", "y", "z"], "label", "keep")
    assert list(table.index) == ["b", "a"]
    assert list(table.columns) == [48, 16]
    assert table.loc["b"].tolist() == ["x", "y"]
    assert pd.isna(table.loc["a", 16])
    assert list(wording.wide(ROWS, ROWS["p"], ["label", "low"], "keep").index) == [
        ("b", 0.05),
        ("b", -0.5),
        ("a", -0.1),
    ]


def test_table_escapes_bars():
    frame = pd.DataFrame({"a": ["x|y"], "b": [1]})
    assert wording.markdown_table(frame) == "| a | b |\n| --- | --- |\n| x\\|y | 1 |"


def test_lists_and_versions():
    assert wording.listing(["a"]) == "a"
    assert wording.listing("abc") == "a, b and c"
    assert wording.versions("\n").startswith("python ")
