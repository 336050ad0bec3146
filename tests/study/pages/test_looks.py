"""Figures: what they must show, and files that come out the same twice."""

import matplotlib.pyplot as plt
import pytest

from lib.pruning import methods
from lib.study.pages import curves, looks


def test_every_method_has_a_look_of_its_own():
    worn = [looks.look(name) for name in methods.NAMES]
    assert len({(one.marker, one.colour) for one in worn}) == len({one.label for one in worn}) == len(worn)
    fixed = list(looks.LOOKS.values())
    assert len({look.marker for look in fixed}) == len({look.colour for look in fixed}) == len(fixed)
    assert looks.look("desap/share=1.0").label == "DeSAP, share=1.0"
    assert looks.look("desap (earlier question)").label == "DeSAP, earlier question"
    assert looks.look("desap/share=1.0 (earlier question)").label == "DeSAP, share=1.0, earlier question"


def test_a_name_without_a_fixed_look_gets_one_of_its_own():
    mine, other = looks.look("half_and_half"), looks.look("guess")
    assert mine == looks.look("half_and_half")
    assert (mine.label, mine.marker) == ("half and half", "$H$")
    assert looks.look("half_and_half/share=0.25").label == "half and half, share=0.25"
    assert mine.colour != other.colour
    assert mine.marker not in {look.marker for look in looks.LOOKS.values()}


def test_saved_files_are_the_same_twice(table, tmp_path):
    written = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        ax = curves.accuracy_curve(table)
        looks.save(ax.figure, "D-1_curve", table, folder)
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert set(written[0]) == {"D-1_curve.png", "D-1_curve.svg", "D-1_curve.csv"}
    assert written[0] == written[1]
    with pytest.raises(ValueError, match="name must be letters"):
        looks.save(plt.figure(), "a/b", table, tmp_path)
