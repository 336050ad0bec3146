"""What an earlier question costs, on rows whose answer is known."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib.pruning.methods import make
from lib.study.arms import Arm
from lib.study.evidence import study_of
from lib.study.pages import n32_multi_turn
from lib.study.scenes.layout import SUITES

PICTURES, KEEP = 60, 16
# Accuracy for the own and for the earlier question.
RATES = {
    "oracle": (1.0, 0.4),
    "desap": (0.9, 0.4),
    "fastv": (0.8, 0.8),
    "cls": (0.6, 0.6),
    "random": (0.5, 0.5),
}


def rows(arm, method, rate, keep=KEEP):
    names = [f"test-2026-{picture:04d}" for picture in range(PICTURES)]
    frames = [
        pd.DataFrame(
            {
                "model": "scenes",
                "arm": arm,
                "method": method,
                "keep": keep,
                "suite": suite,
                "question_id": [f"{name}-{suite}" for name in names],
                "image_id": names,
                "correct": (np.arange(PICTURES) < rate * PICTURES).astype(float),
                "prediction": np.where(np.arange(PICTURES) < rate * PICTURES, "red", "blue"),
                "kept_on_evidence": rate if suite != "scene" else np.nan,
            }
        )
        for suite in SUITES
    ]
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def study():
    frames = [rows("none", "none", 1.0, 144), rows("divprune", "divprune", 0.7)]
    for name, (own, earlier) in RATES.items():
        frames += [rows(name, name, own), rows(name + n32_multi_turn.EARLIER, name, earlier)]
    return study_of(pd.concat(frames, ignore_index=True))


@pytest.fixture(scope="module")
def arms():
    made = [Arm(method=make(name, keep=KEEP), told=told) for told in ("asked", "earlier") for name in RATES]
    return [Arm(method=make("none")), Arm(method=make("divprune", keep=KEEP)), *made]


@pytest.fixture(scope="module")
def frame(study, arms):
    return n32_multi_turn.losses(study, arms)


def test_losses_are_paired_and_ordered(frame):
    assert frame["arm"].tolist() == ["oracle", "desap", "fastv", "cls", "divprune", "random"]
    assert frame["hears"].tolist() == [True] * 3 + [False] * 3
    assert frame.loc[~frame["measured"], "arm"].tolist() == ["divprune"]
    found = frame.set_index("arm")
    for name, (own, earlier) in RATES.items():
        assert found.loc[name, "own"] == pytest.approx(own)
        assert found.loc[name, "earlier"] == pytest.approx(earlier)
        assert found.loc[name, "estimate"] == pytest.approx(own - earlier, abs=1e-9)
    assert found.loc["desap", "p"] < 0.05 < found.loc["fastv", "p"]


def test_sentences_hold_the_numbers(study, frame):
    told = n32_multi_turn.sentence(study, frame, KEEP)
    assert "At 16 tokens 1 of 2 methods that hear the question answer the next one worse, Holm-adj" in told
    assert "The widest loss is that of DeSAP: 0.900 becomes 0.400, +0.500 [" in told
    assert "for its own question: DeSAP (0.900); for the next one: FastV (0.800)" in told
    assert "the best that hears nothing, DivPrune, has 0.700 for either" in told
    assert "for the next question 0 lie below random tokens (0.500). Most" in told
    sunk = n32_multi_turn.sentence(study, frame.assign(earlier_high=0.4), KEEP)
    assert "for the next question 2 lie below random tokens (0.500): DeSAP and FastV. Most" in sunk
    turned = frame.assign(estimate=-frame["estimate"])
    assert "0 of 2 methods" in n32_multi_turn.sentence(study, turned, KEEP)
    assert " and 1 better (DeSAP), Holm" in n32_multi_turn.sentence(study, turned, KEEP)
    told = n32_multi_turn.blind_sentence(study, KEEP)
    assert "[CLS] top-k gives 100.0% of its answers again" in told
    assert "holds zero" in told


def test_sure_differences_are_counted(frame):
    assert n32_multi_turn.sure_sentence(frame) == (
        "Of 5 measured differences 2 are losses and 0 gains with an adjusted p below 0.05; the other 3 may be chance."
    )


def test_table_marks_what_is_sure(frame):
    shown = n32_multi_turn.table(frame).set_index("method")
    assert shown.loc["DeSAP", "loss"].startswith("+0.500 [")
    assert shown.loc["DeSAP", "loss"].endswith("*")
    assert shown.loc["FastV", "loss"] == "+0.000 [+0.000, +0.000] "
    assert shown.loc["DivPrune", "p (Holm)"] == "by construction"
    assert shown.loc["random", "hears the question"] == "no"


def test_pairs_of_suites_have_no_diagonal(study):
    wide = n32_multi_turn.pairs_of_suites(study, "desap", KEEP)
    assert wide.index.tolist() == wide.columns.tolist() == list(SUITES)
    assert np.isnan(np.diag(wide)).all()
    off = wide.to_numpy()[~np.eye(len(SUITES), dtype=bool)]
    assert np.isfinite(off).all()
    assert off.mean() == pytest.approx(0.5, abs=0.02)
    evidence = n32_multi_turn.pairs_of_suites(study, "desap", KEEP, "kept_on_evidence")
    assert evidence["scene"].isna().all()
    assert evidence["exists"].dropna().tolist() == pytest.approx([0.5] * 5)
    found = n32_multi_turn.evidence(study, ["desap", "fastv"], KEEP)
    assert found["own question"].tolist() == [0.9, 0.8]
    assert found["earlier question"].tolist() == [0.4, 0.8]
    told = n32_multi_turn.evidence_sentence(study, found, KEEP)
    assert (
        told
        == "Tokens drawn by chance hold 0.111 of the evidence. All 2 hold at least as much for the question itself as for another one."
    )
    turned = found.assign(**{"own question": [0.3, 0.8]})
    assert (
        "1 of 2 hold less for the question itself than for another one: DeSAP."
        in n32_multi_turn.evidence_sentence(study, turned, KEEP)
    )
    assert "lose most" in n32_multi_turn.pair_sentence(study, "desap", KEEP)


def test_figures_show_both_questions(study, frame):
    figure = n32_multi_turn.draw(study, frame)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == frame["label"].tolist()
    figure.canvas.draw()
    figure, drawn = n32_multi_turn.draw_pairs(study, ["desap", "fastv"], KEEP, "correct", "told")
    assert len(drawn) == 2 * 30
    figure.canvas.draw()
    plt.close("all")
