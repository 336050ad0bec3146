"""Figures: what they must show, and files that come out the same twice."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib.pruning import methods
from lib.study import claims, tables
from lib.study.pages import plots
from lib.study.pages.looks import FONT
from testkit.frames import accuracy_rows


@pytest.fixture(autouse=True)
def look_and_close():
    plots.theme()
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def table():
    arms = [("none", 144, 0.95), ("blind", 0, 0.3)]
    arms += [(arm, keep, rate) for arm, rate in (("desap", 0.8), ("random", 0.5)) for keep in (16, 32, 48)]
    return tables.accuracy_table(pd.concat([accuracy_rows(*arm) for arm in arms], ignore_index=True))


def test_every_method_has_a_look_of_its_own():
    looks = [plots.look(name) for name in methods.NAMES]
    assert (
        len({(look.marker, look.colour) for look in looks})
        == len({look.label for look in looks})
        == len(looks)
    )
    fixed = list(plots.LOOKS.values())
    assert len({look.marker for look in fixed}) == len({look.colour for look in fixed}) == len(fixed)
    assert plots.look("desap/share=1.0").label == "DeSAP, share=1.0"
    assert plots.look("desap (earlier question)").label == "DeSAP, earlier question"
    assert plots.look("desap/share=1.0 (earlier question)").label == "DeSAP, share=1.0, earlier question"


def test_a_name_without_a_fixed_look_gets_one_of_its_own():
    mine, other = plots.look("half_and_half"), plots.look("guess")
    assert mine == plots.look("half_and_half")
    assert (mine.label, mine.marker) == ("half and half", "$H$")
    assert plots.look("half_and_half/share=0.25").label == "half and half, share=0.25"
    assert mine.colour != other.colour
    assert mine.marker not in {look.marker for look in plots.LOOKS.values()}


def test_a_curve_takes_a_name_without_a_fixed_look(table):
    renamed = table.assign(method=table["method"].replace("desap", "half_and_half"))
    ax = plots.accuracy_curve(renamed)
    shown = [text.get_text() for text in ax.get_legend().get_texts()]
    assert shown[-1] == "half and half"
    ax.figure.canvas.draw()


def test_curve_shows_levels_random_and_published(table):
    published = pd.DataFrame({"method": ["DeSAP"], "keep": [16], "accuracy": [0.9]})
    ax = plots.accuracy_curve(table, arms=["desap"], published=published)
    shown = [text.get_text() for text in ax.get_legend().get_texts()]
    assert {"DeSAP", "unpruned", "no visual token", "random"} < set(shown)
    assert min(text.get_fontsize() for text in ax.get_legend().get_texts()) >= 9
    assert min(label.get_fontsize() for label in ax.get_xticklabels()) >= 9
    with pytest.raises(ValueError, match="no rows of suite 'nothing'"):
        plots.accuracy_curve(table, suite="nothing")
    with pytest.raises(ValueError, match=r"lacks the columns \['low'\]"):
        plots.accuracy_curve(table.drop(columns="low"))


def test_bars_have_intervals():
    frame = pd.DataFrame(
        {"arm": ["desap", "cls"], "estimate": [0.5, 0.4], "low": [0.4, 0.3], "high": [0.6, 0.5]}
    )
    ax = plots.ablation_bars(frame.assign(reference=0.9))
    assert [bar.get_width() for bar in ax.patches] == [0.5, 0.4]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["DeSAP", "[CLS] top-k"]


def test_overlay_marks_kept_tokens_and_boxes():
    image = np.zeros((96, 96, 3), dtype=np.uint8)
    ax = plots.kept_overlay(image, [0, 13], (12, 12), boxes=[(0, 0, 16, 16)])
    assert len(ax.patches) == 2 * 2 + 1
    assert ax.patches[2].get_xy() == (8.0, 8.0)
    plots.kept_overlay(image, [], (12, 12), scores=np.arange(144))
    with pytest.raises(ValueError, match=r"kept must lie in 0\.\.143"):
        plots.kept_overlay(image, [144], (12, 12))
    with pytest.raises(ValueError, match="scores must have 144 values"):
        plots.kept_overlay(image, [0], (12, 12), scores=[1.0])


def test_strip_shows_every_claim_alike():
    register = claims.read_claims()
    ax = plots.verdict_strip(register)
    sizes = {text.get_fontsize() for text in ax.texts}
    assert sizes == {FONT}
    assert len(ax.texts) == 2 * len(register)


def test_saved_files_are_the_same_twice(table, tmp_path):
    written = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        ax = plots.accuracy_curve(table)
        plots.save(ax.figure, "D-1_curve", table, folder)
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert set(written[0]) == {"D-1_curve.png", "D-1_curve.svg", "D-1_curve.csv"}
    assert written[0] == written[1]
    with pytest.raises(ValueError, match="name must be letters"):
        plots.save(plt.figure(), "a/b", table, tmp_path)
