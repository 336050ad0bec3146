"""Ablations against their defaults, on records whose answer is known."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lib.study import ablations
from lib.study.ablations import Switch
from lib.study.arms import TIGHT, adaptprune_arms, constant_arms, desap_arms, shared_arms
from lib.study.evidence import Study
from lib.study.pages import n30_ablations
from lib.study.rules import Evidence
from lib.study.tables import accuracy_table, per_question
from testkit.frames import accuracy_rows

SWITCHES = (
    Switch("DeSAP", "default", "merging", "no merging", "desap/merge=False", "desap"),
    Switch("DeSAP", "default", "share", "saliency only", "desap/share=0.0", "desap"),
    Switch("DeSAP", "default", "share", "not run", "desap/x", "desap"),
    Switch("AdaptPrune", "layer 2 (default)", "cues", "no prior", "adaptprune/centre=False", "adaptprune"),
    Switch(
        "AdaptPrune", "layer 1", "cues", "no prior", "adaptprune/layer=1,centre=False", "adaptprune/layer=1"
    ),
)


@pytest.fixture(scope="module")
def study():
    rates = {"desap": 0.8, "desap/merge=False": 0.8, "desap/share=0.0": 0.4, "adaptprune": 0.5}
    rates |= {
        "adaptprune/centre=False": 0.9,
        "adaptprune/layer=1": 0.5,
        "adaptprune/layer=1,centre=False": 0.55,
    }
    frame = pd.concat([accuracy_rows(arm, 16, rate) for arm, rate in rates.items()], ignore_index=True)
    empty = pd.DataFrame()
    evidence = Evidence(accuracy=per_question(frame), measures=empty)
    return Study(
        folder=None, accuracy=frame, measures=empty, table=accuracy_table(frame), claims=empty, clauses=empty,
        evidence=evidence, seed=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def frame(study):
    return ablations.differences(study, 16, SWITCHES)


def test_differences_are_paired_with_their_own_default(frame):
    assert frame["label"].tolist() == ["no merging", "saliency only", "no prior", "no prior"]
    assert frame["estimate"].tolist() == pytest.approx([0, -0.4, 0.4, 0.05], abs=1e-9)
    assert frame["n"].tolist() == [240] * 4
    assert (frame["p"] < 0.05).tolist() == [False, True, True, True]


def test_holm_counts_a_paper_as_one_family(study, frame):
    alone = [
        ablations.differences(study, 16, [switch])["p"].item()
        for switch in SWITCHES
        if "x" not in switch.arm[-2:]
    ]
    assert frame["p"][0] == alone[0] == 1
    assert frame["p"][1] == pytest.approx(2 * alone[1])
    assert frame["p"][2] == pytest.approx(2 * alone[2])


def test_sentence_and_titles_hold_the_numbers(frame):
    told = n30_ablations.sentence(frame)
    assert "DeSAP, default: of 2 changes 1 loses answers: saliency only (-0.400 [" in told
    assert "AdaptPrune, layer 2 (default): of 1 change 1 wins some: no prior (+0.400 [" in told
    desap, adaptprune = (frame[frame["paper"] == paper] for paper in ("DeSAP", "AdaptPrune"))
    assert n30_ablations.title(desap) == "DeSAP: 1 of 2 changes move accuracy;\n“saliency only” loses 0.40"
    assert n30_ablations.title(adaptprune) == (
        "AdaptPrune: 1 of 1 at layer 2 and 1 of 1 at layer 1 move accuracy;\n“no prior” gains 0.40"
    )
    still = frame[frame["label"] == "no merging"]
    assert n30_ablations.title(still) == "DeSAP: 0 of 1 changes move accuracy"
    assert (
        "of 1 change none is told apart from 0; no interval reaches beyond 0.000"
        in n30_ablations.sentence(still)
    )


def test_table_marks_what_is_told_apart(frame):
    shown = n30_ablations.table(frame)
    assert shown.loc[("DeSAP", "share", "saliency only"), "default"].endswith("]*")
    assert shown.loc[("DeSAP", "merging", "no merging"), "default"] == "+0.000 [+0.000, +0.000]"
    assert shown.loc[("AdaptPrune", "cues", "no prior")].tolist()[0] == ""
    assert shown.loc[("AdaptPrune", "cues", "no prior"), "layer 1"].startswith("+0.050 [")


def test_figure_has_a_line_a_switch_and_says_what_lies_beyond(frame):
    figure = n30_ablations.draw(frame, 16)
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == [
        "merging",
        "no merging",
        "share",
        "saliency only",
    ]
    assert [text.get_text() for text in left.texts] == ["-0.40"]
    assert [text.get_text() for text in right.texts] == ["+0.40"]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["layer 2 (default)", "layer 1"]
    assert left.get_xlim() == right.get_xlim()
    plt.close(figure)


def test_nothing_run_is_told(study):
    empty = ablations.differences(study, 16, SWITCHES[2:3])
    assert empty.empty
    assert n30_ablations.sentence(empty) == "No ablation was run at this budget."
    with pytest.raises(ValueError, match="frame holds no ablation"):
        n30_ablations.draw(empty, 16)


def test_every_ablation_that_notebooks_record_is_shown():
    """Shuffled questions are a control, FastV's layer is FastV's."""
    shown = {switch.arm for switch in ablations.SWITCHES} | {
        switch.reference for switch in ablations.SWITCHES
    }
    run = [arm for arm in [*desap_arms(), *adaptprune_arms(), *constant_arms()] if arm.method.keep == TIGHT]
    assert {arm.label for arm in run if "(" not in arm.label and arm.method.name != "fastv"} <= shown


def test_every_named_arm_is_one_that_notebooks_record():
    run = {arm.label for arm in [*shared_arms(), *desap_arms(), *adaptprune_arms(), *constant_arms()]
           if arm.method.keep in (TIGHT, None)}  # fmt: skip
    for switch in ablations.SWITCHES:
        assert {switch.arm, switch.reference} <= run
    pairs = [(switch.paper, switch.series, switch.group, switch.label) for switch in ablations.SWITCHES]
    assert len(set(pairs)) == len(pairs)  # a line of the figure holds one number a series
