"""Points and bars with their intervals."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lib.study.pages import curves, forest


def test_bars_have_intervals():
    frame = pd.DataFrame(
        {"arm": ["desap", "cls"], "estimate": [0.5, 0.4], "low": [0.4, 0.3], "high": [0.6, 0.5]}
    )
    ax = forest.ablation_bars(frame.assign(reference=0.9))
    assert [bar.get_width() for bar in ax.patches] == [0.5, 0.4]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["DeSAP", "[CLS] top-k"]


def test_dots_and_bands_draw_intervals_as_given():
    frame = pd.DataFrame(
        {"arm": ["a", "b"], "mean": [0.5, 0.4], "low": [0.4, 0.3], "high": [0.6, 0.6], "x": [1, 2]}
    )
    ax = forest.means(plt.figure().add_subplot(), frame, "arm", "share", reference=0.1)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert curves.band(plt.figure().add_subplot(), frame, "x", "name", "C0").lines[0].get_label() == "name"
    with pytest.raises(ValueError, match=r"lacks the columns \['high'\]"):
        forest.means(ax, frame.drop(columns="high"), "arm", "share")


def test_a_forest_sets_series_apart_and_draws_what_is_not_filled_hollow():
    frame = pd.DataFrame(
        {
            "label": ["a", "b", "a"],
            "series": ["one", "one", "two"],
            "estimate": [0.1, 0.2, 0.3],
            "low": 0.0,
            "high": [0.2, 0.4, 0.6],
            "filled": [True, False, True],
        }
    )
    ax = plt.figure().add_subplot()
    shifts = forest.spread(2, 0.2)
    series = {
        name: forest.Series("C0", "o", shift) for name, shift in zip(("one", "two"), shifts, strict=True)
    }
    forest.forest(ax, frame, ["b", "a"], series)
    forest.name_lines(ax, ["b", "a"])
    drawn = [container.lines[0] for container in ax.containers]
    assert sorted(line.get_xydata()[0].tolist() for line in drawn) == [[0.1, 0.9], [0.2, -0.1], [0.3, 1.1]]
    assert {line.get_xdata()[0]: line.get_markerfacecolor() for line in drawn} == {
        0.1: "C0",
        0.2: "white",
        0.3: "C0",
    }
    assert ax.get_ylim() == (1.6, -0.6)
    with pytest.raises(ValueError, match=r"lacks the columns \['series'\]"):
        forest.forest(ax, frame.drop(columns="series"), ["b"], series)
