"""Head to head: differences, order and sentences on records whose answer is known."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib.study.arms import CONTENDERS
from lib.study.evidence import Study
from lib.study.pages import forest, n31_head_to_head
from lib.study.pages.looks import look
from lib.study.ranks import ranking
from lib.study.rules import Evidence
from lib.study.tables import accuracy_table, per_question

SUITES = ("exists", "read")
RATES = {"desap": 0.9, "cls": 0.7, "fastv": 0.3}


@pytest.fixture(scope="module")
def study():
    rng, rows = np.random.default_rng(0), []
    for arm, rate, seeds in [
        *((arm, rate, (-1,)) for arm, rate in RATES.items()),
        ("random", 0.5, (0, 1, 2)),
    ]:
        for keep, seed, suite in [
            (keep, seed, suite) for keep in (16, 32) for seed in seeds for suite in SUITES
        ]:
            right = rng.permutation(120) < rate * 120  # the rate exactly, on other pictures each time
            rows += [(arm, keep, seed, f"{picture}", suite, float(right[picture])) for picture in range(120)]
    frame = pd.DataFrame(rows, columns=["arm", "keep", "seed", "image_id", "suite", "correct"])
    frame = frame.assign(model="made", question_id=frame["image_id"] + frame["suite"])
    empty = pd.DataFrame()
    evidence = Evidence(accuracy=per_question(frame), measures=empty)
    return Study(
        folder=None,
        accuracy=frame,
        measures=empty,
        table=accuracy_table(frame),
        claims=empty,
        clauses=empty,
        evidence=evidence,
        seed=0,
    )


def test_differences_are_ordered_and_adjusted(study):
    pairs = n31_head_to_head.against_random(
        study, ["fastv", "random", "cls", "desap", "adaptprune"], (32, 16)
    )
    assert pairs["arm"].tolist() == ["desap", "desap", "cls", "cls", "fastv", "fastv"]
    assert pairs["keep"].tolist() == [32, 16] * 3
    tight = pairs[pairs["keep"] == 16].set_index("arm")["estimate"]
    for arm, rate in RATES.items():
        assert tight[arm] == pytest.approx(rate - 0.5, abs=1e-9)
    told = n31_head_to_head.sentence(pairs, 16)
    assert "2 of 3 methods answer more than random choice and 1 fewer" in told
    assert "DeSAP's" in told
    shown = n31_head_to_head.table(pairs)
    assert list(shown.columns) == [32, 16]
    assert shown.loc["FastV", 16].startswith("-0.")
    assert shown.loc["FastV", 16].endswith("*")


def test_seeds_are_counted_one_by_one(study):
    spread = n31_head_to_head.seed_spread(study, (32, 16))
    assert spread["seeds"].tolist() == [3, 3]
    assert ((spread["least"] <= spread["mean"]) & (spread["mean"] <= spread["most"])).all()
    mine = study.accuracy[(study.accuracy["arm"] == "random") & (study.accuracy["keep"] == 16)]
    assert spread["mean"][1] == pytest.approx(mine["correct"].mean(), abs=1e-3)


def test_title_names_the_first_and_counts_the_rest(study):
    found = ranking(study.accuracy, [*RATES, "random"], 16)
    title = n31_head_to_head.rank_title(found, 16, 144)
    assert title.startswith("16 of 144 tokens: DeSAP ranks first, 0 not told apart")


def test_suites_are_compared_one_by_one(study):
    both = n31_head_to_head.against_random(study, [*RATES, "random"], (16,), ("all", *SUITES))
    assert both.groupby("arm")["suite"].agg(list).tolist() == [["all", *SUITES]] * 3
    assert both["arm"].tolist() == ["desap"] * 3 + ["cls"] * 3 + ["fastv"] * 3
    alone = n31_head_to_head.against_random(study, list(RATES), (16,))
    mine = both[both["suite"] == "all"].reset_index(drop=True)
    assert mine["estimate"].tolist() == alone["estimate"].tolist()
    assert mine["p"].tolist() == alone["p"].tolist()  # single suites are a family of their own
    assert n31_head_to_head.table(both).shape == (3, 1)
    title = n31_head_to_head.draw_suites(both, 16).axes[0].get_title()
    assert title.startswith("16 tokens: methods differ most on ")


def test_costs_follow_the_cuts():
    found = n31_head_to_head.costs(("desap", "fastv", "pyramiddrop"), 16, 144, 5)
    assert found.loc["DeSAP"].tolist() == [16] * 5 + [16, 0.111]
    assert found.loc["FastV"].tolist() == [144, 144, 16, 16, 16, 67.2, 0.467]
    assert found.index.tolist() == ["DeSAP", "PyramidDrop", "FastV"]
    assert found.loc["PyramidDrop", "layer 4"] == 16
    both = n31_head_to_head.costs(CONTENDERS, 16, 144)
    assert both.loc["SparseVLM"].tolist()[:5] == [144, 62, 28, 16, 16]
    assert both.loc["SparseVLM, cuts one layer later"].tolist()[:5] == [144, 144, 62, 28, 16]
    assert len(both) == len(CONTENDERS)


def test_one_method_s_place_is_told(study):
    pairs = n31_head_to_head.against_random(study, ["fastv", "cls", "desap"], [16])
    told = n31_head_to_head.place_of(study, pairs, "cls", 16)
    assert told.startswith("**[CLS] top-k** answers 0.700 [")
    assert "its difference to random choice is +0.200 [" in told
    assert "it is number 2 of 3 by that difference" in told
    shown = n31_head_to_head.level_table(study, ["desap", "fastv"], 16)
    assert shown.index.tolist() == ["DeSAP", "FastV"]
    assert shown.loc["DeSAP", "read"] == "0.900"
    assert shown.loc["FastV", "all suites"].startswith("0.300 [")
    assert list(shown.columns) == ["all suites", *SUITES]


def test_one_series_of_arms_wears_their_looks(study):
    pairs = n31_head_to_head.against_random(study, ["fastv", "cls", "desap"], [16])
    figure = forest.dots(pairs, "difference")
    assert figure.axes[0].get_legend() is None
    drawn = [box.lines[0].get_marker() for box in figure.axes[0].containers]
    assert drawn == [look(arm).marker for arm in pairs["arm"]]
    figure = forest.dots(pairs.drop(columns="arm"), "difference")
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["16 tokens"]
    plt.close("all")


def test_replaced_records_are_told_with_places_and_the_side_of_random(study):
    pairs = n31_head_to_head.against_random(study, ["fastv", "cls", "desap"], (16,))
    before = pd.DataFrame({"method": ["fastv", "cls"], "keep": 16, "accuracy": [0.8, 0.69], "commit": "abc"})
    told = n31_head_to_head.changes(study, pairs, 16, before)
    assert "FastV 0.800 to 0.300 (place 2 to 3) and " in told
    assert "0.690 to 0.700 (place 3 to 2)" in told
    assert "FastV is now below." in told
    assert "commit abc" in told
    same = n31_head_to_head.changes(study, pairs, 16, before.assign(accuracy=[0.31, 0.69]))
    assert same.endswith("None changed sides of random tokens.")
