"""Ablations against their defaults, on records whose answer is known."""

import pandas as pd
import pytest

from lib.study import ablations
from lib.study.arms import TIGHT, adaptprune_arms, constant_arms, desap_arms, shared_arms
from lib.study.report import Study
from lib.study.rules import Evidence
from lib.study.tables import accuracy_table, per_question
from tests.study.helpers import accuracy_rows

FAMILIES = {
    "first": (
        "desap",
        {"desap/merge=False": "no merging", "desap/share=0.0": "saliency only", "desap/x": "not run"},
    ),
    "second": ("adaptprune", {"adaptprune/centre=False": "no prior"}),
}


@pytest.fixture(scope="module")
def study():
    rates = {"desap": 0.8, "desap/merge=False": 0.8, "desap/share=0.0": 0.4, "adaptprune": 0.5}
    rates["adaptprune/centre=False"] = 0.9
    frame = pd.concat([accuracy_rows(arm, 16, rate) for arm, rate in rates.items()], ignore_index=True)
    empty = pd.DataFrame()
    evidence = Evidence(accuracy=per_question(frame), measures=empty)
    return Study(
        folder=None, accuracy=frame, measures=empty, table=accuracy_table(frame), claims=empty, clauses=empty,
        evidence=evidence, seed=0,
    )  # fmt: skip


def test_differences_are_paired_with_their_own_default(study):
    frame = ablations.differences(study, FAMILIES, 16)
    assert frame["label"].tolist() == ["no merging", "saliency only", "no prior"]
    assert frame["estimate"].tolist() == pytest.approx([0, -0.4, 0.4], abs=1e-9)
    told = ablations.sentence(frame)
    assert "First: of 2 changes 1 lose answers (saliency only (-0.400 " in told
    assert "Second: of 1 changes 0 lose answers and 1 win some (no prior (+0.400 " in told
    assert ablations.title(frame, 16).startswith("16 tokens: 2 of 3 changes are told apart from the default")
    assert "most is lost by “saliency only”, first (-0.40)" in ablations.title(frame[:2], 16)
    assert "most is won by “no prior”, second (+0.40)" in ablations.title(frame[2:], 16)
    still = ablations.title(frame[frame["label"] == "no merging"], 16)
    assert still == "16 tokens: 0 of 1 changes are told apart from the default"


def test_every_named_arm_is_one_that_notebooks_record():
    run = {arm.label for arm in [*shared_arms(), *desap_arms(), *adaptprune_arms(), *constant_arms()]
           if arm.method.keep in (TIGHT, None)}  # fmt: skip
    for families in (ablations.DESAP, ablations.ADAPTPRUNE):
        for reference, arms in families.values():
            assert {reference, *arms} <= run
