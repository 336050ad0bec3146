"""Notebook sections: sentences that hold whatever the numbers are, tables that say what was found."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib.paths import places
from lib.study import compare, evidence, records
from lib.study.arms import BUDGETS, adaptprune_arms, desap_arms, shared_arms
from lib.study.pages import captions, curves, forest, looks, n11_n21_claims, sections
from testkit.frames import accuracy_rows, measure_rows

RATES = {"none": 0.95, "oracle": 0.9, "desap": 0.8, "adaptprune": 0.7, "cls": 0.65, "fastv": 0.6}


def write(folder, name, frame, kind="accuracy"):
    records.write(frame, folder / f"{name}.parquet", records.provenance(weights="abc"), kind=kind)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    arms = [("none", 144, 0.95), ("blind", 0, 0.2)]
    arms += [(arm, keep, rate) for arm, rate in RATES.items() if arm != "none" for keep in BUDGETS]
    arms += [("desap (shuffled question)", 16, 0.3), ("desap/share=1.0", 16, 0.75), ("random", 16, 0.4)]
    for place, (arm, keep, rate) in enumerate(arms):
        rows = accuracy_rows(arm, keep, rate, questions=40)
        write(folder, f"a{place}", rows.assign(method=rows["arm"].str.split(r"[/ ]").str[0]))
    write(folder, "m1", measure_rows("cosine_residual", np.linspace(0.7, 0.9, 20)), "measure")
    write(folder, "m2", measure_rows("cosine_attention", np.linspace(0.1, 0.3, 20)), "measure")
    write(folder, "m3", measure_rows("nms_picks_equal", np.ones(5), "constructed"), "measure")
    return evidence.read_study(folder, 0)


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """What a notebook would show."""
    seen = []
    monkeypatch.setattr(sections, "display", seen.append)
    looks.theme()
    yield seen
    plt.close("all")


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="run this notebook with source live"):
        evidence.read_study(tmp_path)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("replay", 0, 0), "source must be one of recorded, live, got 'replay'"),
        (("live", -1, 0), "questions must be an integer of at least 0, got -1"),
        (("live", 1, 0), "at least 2"),
        (("live", 0, 1.5), "seed must be an integer of at least 0, got 1.5"),
    ],
)
def test_parameters_are_checked(given, told):
    evidence.check_parameters("live", 2, 0)
    with pytest.raises(ValueError, match=told):
        evidence.check_parameters(*given)


def test_answer_counts_every_claim_once(study):
    text = sections.answer(study, ["D-1", "D-5", "D-7", "A-6"])
    assert text == (
        "**Answer.** Of 4 claims judged on this page: 2 supported (D-1, A-6), 1 inconclusive (D-7) and "
        "1 not testable here (D-5)."
    ) or text.startswith("**Answer.** Of 4 claims judged on this page: ")
    for claim in ("D-1", "D-5", "D-7", "A-6"):
        assert text.count(claim) == 1
    assert "weights abc" in sections.origin(study)
    assert "40 questions" not in sections.origin(study)


def test_sections_show_rule_clauses_and_verdict(study, shown):
    sections.show_claims(study, "D-1", "A-6", "D-5", "A-4")
    text = [getattr(item, "data", item) for item in shown]
    assert "What counts: `order desap > cls @ 16 on all margin 0;" in text[0]
    assert text[1]["verdict"].tolist() == ["supported"] * 3
    assert text[2].startswith("**D-1: supported.** Weakest clause: +0.")
    assert "Weakest clause: 1 (n = 5, tier constructed)" in text[5]
    assert text[8] == "**D-5: not testable here.**"
    assert "partly supported" in text[11]


def test_missing_arms_are_said_to_be_missing(study):
    clauses = sections.clause_table(study, "D-8")
    assert set(clauses["verdict"]) == {"not run yet"}
    assert set(clauses["estimate"]) == {""}
    assert sections.sentence(study, "D-8") == "**D-8: not run yet.**"


def test_clause_numbers_are_readable(study):
    table = sections.clause_table(study, "D-17")
    assert table["estimate"].iloc[0] == "2.654e+07"
    frame = pd.DataFrame({"id": ["a"], "clause": ["c"], "n": [3], "estimate": [-0.0002], "low": [-0.1]})
    frame = frame.assign(high=0.1, p=0.0002, verdict="inconclusive")
    shown = sections.clause_frame(frame).iloc[0]
    assert (shown["estimate"], shown["low"], shown["p (raw)"]) == ("0.000", "-0.100", "<0.001")


def test_tables_are_written(study, tmp_path):
    where = places(str(tmp_path))
    evidence.write_tables(study, where)
    table = pd.read_csv(where.tables / "accuracy.csv")
    assert {"none", "blind", "desap"} <= set(table["method"])
    assert (where.tables / "retention.csv").is_file()


def test_untestable_claims_carry_their_reason(study):
    table = sections.untestable(study.claims)
    assert table["id"].tolist() == ["D-5", "D-6", "D-12", "D-13", "D-15", "A-5"]
    assert table["why"].str.startswith("needs").all()


def test_difference_is_that_of_the_claims(study):
    found = compare.difference(study, "desap", "cls", 16)
    clause = study.clauses[(study.clauses["id"] == "D-1")].iloc[0]
    assert round(found["estimate"], 4) == clause["estimate"]
    assert round(found["low"], 4) == clause["low"]
    assert compare.difference(study, "desap", "uniform", 16)["n"] == 0


def test_controls_hold_and_fail(study):
    table = compare.controls(study, 16)
    held = table.set_index("comparison")["holds"]
    assert held["oracle - desap"] == "yes"
    assert held["desap - random"] == "yes"
    assert held["desap - desap (shuffled question)"] == "yes"
    assert not table["comparison"].str.contains("uniform").any()


def test_retention_is_the_mean_of_ratios(study):
    table = compare.retention_intervals(study).set_index(["method", "keep"])["accuracy"]
    assert table["none", 144] == pytest.approx(1.0)
    full = study.table[study.table["method"] == "none"].set_index("suite")["accuracy"]
    mine = study.table[(study.table["method"] == "desap") & (study.table["keep"] == 16)]
    ratios = [row.accuracy / full[row.suite] for row in mine.itertuples() if row.suite != "all"]
    assert table["desap", 16] == pytest.approx(np.mean(ratios), abs=2e-4)


def test_same_answers(study):
    assert compare.same_answers(study, "desap", "desap", 16) == 1
    assert 0 < compare.same_answers(study, "desap", "fastv", 16) < 1


def test_published_values_stand_at_the_same_share():
    table = n11_n21_claims.published_retention(144)
    desap = table[table["method"] == "desap"].set_index("keep")["accuracy"]
    assert desap.to_dict() == {16: 0.981, 32: 0.996, 48: 1.003}


def test_figures_draw_what_is_there(study):
    assert "at 16 of 144 tokens: unpruned 0.95" in n11_n21_claims.headline(study, 16)
    ticks = [label.get_text() for label in curves.accuracy_figure(study.table, 144).axes[0].get_xticklabels()]
    assert ticks == ["16", "32", "48"]
    assert len(curves.suite_curves(study.table, 144).axes) == 2
    _, plotted = n11_n21_claims.retention_curves(study)
    assert plotted["source"].nunique() > 1
    figure, plotted = n11_n21_claims.bars_and_differences(
        study, n11_n21_claims.LABELS["D-7_share"], "desap", 16
    )
    assert plotted["record"].unique().tolist() == ["desap", "desap/share=1.0"]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["half task, half saliency", "task only"]
    n11_n21_claims.bars(study, n11_n21_claims.LABELS["11_shuffled_question"], 16)
    _, plotted = n11_n21_claims.mechanism_bars(study)
    assert set(plotted["measure"]) == {"cosine_residual", "cosine_attention"}
    frame = n11_n21_claims.against(study, "adaptprune", "fastv", BUDGETS)
    assert len(forest.dots(frame, "difference").axes[0].get_yticks()) == 3


def test_captions_and_labels_fit_the_arms(study):
    arms = {arm.label for arm in [*shared_arms(), *desap_arms(), *adaptprune_arms()]}
    for name, labels in n11_n21_claims.LABELS.items():
        assert set(labels) <= arms
        assert name in captions.CAPTIONS
        assert f"`{name}.csv`" in sections.caption(study, name)


def test_a_slip_in_an_arm_s_name_is_refused(study):
    for ask in (
        lambda: compare.levels(study, ["desap", "desapp"], 16),
        lambda: compare.difference(study, "desapp/share=1.0", "random", 16),
        lambda: compare.alike(study, "random", "desapp (earlier question)", 16),
    ):
        with pytest.raises(
            ValueError, match=r"arm 'desapp.*' has no record and 'desapp' is no method; known: none"
        ):
            ask()
    assert compare.levels(study, ["tome"], 16).empty  # known, not run: left out
    assert compare.difference(study, "tome", "random", 16)["n"] == 0


def test_a_study_of_rows_at_hand_judges_nothing(study):
    mine = evidence.study_of(study.accuracy, study.seed)
    assert mine.table.equals(study.table)
    assert (mine.claims.empty, mine.measures.empty) == (True, True)
    found, wanted = (compare.difference(one, "desap", "cls", 16) for one in (mine, study))
    assert found == wanted
