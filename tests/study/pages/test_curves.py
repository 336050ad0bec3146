"""Curves over budgets: levels, intervals and published values as given."""

import pandas as pd
import pytest

from lib.study.pages import curves


def test_a_curve_takes_a_name_without_a_fixed_look(table):
    renamed = table.assign(method=table["method"].replace("desap", "half_and_half"))
    ax = curves.accuracy_curve(renamed)
    shown = [text.get_text() for text in ax.get_legend().get_texts()]
    assert shown[-1] == "half and half"
    ax.figure.canvas.draw()


def test_curve_shows_levels_random_and_published(table):
    published = pd.DataFrame({"method": ["DeSAP"], "keep": [16], "accuracy": [0.9]})
    ax = curves.accuracy_curve(table, arms=["desap"], published=published)
    shown = [text.get_text() for text in ax.get_legend().get_texts()]
    assert {"DeSAP", "unpruned", "no visual token", "random"} < set(shown)
    assert min(text.get_fontsize() for text in ax.get_legend().get_texts()) >= 9
    assert min(label.get_fontsize() for label in ax.get_xticklabels()) >= 9
    with pytest.raises(ValueError, match="no rows of suite 'nothing'"):
        curves.accuracy_curve(table, suite="nothing")
    with pytest.raises(ValueError, match=r"lacks the columns \['low'\]"):
        curves.accuracy_curve(table.drop(columns="low"))
