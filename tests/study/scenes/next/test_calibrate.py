"""Calibration and gate: only controls that no claim is about, tables that hold them against what was asked."""

import numpy as np
import pandas as pd
import pytest
import torch

from lib.models import embedded
from lib.models.architectures import Sizes
from lib.models.hub import load
from lib.study.scenes.next import gate
from lib.study.scenes.next.calibrate import ARMS, arms, ask, calibration_table, suite_table
from lib.study.scenes.next.words import SUITES, benchmark, words
from lib.study.scenes.next.world import Layout

TINY = Sizes(image=192, vision_layers=2, text_layers=1, width=32, layers=2, intermediate=32)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder, vocab = tmp_path_factory.mktemp("model"), embedded.vocabulary(words())
    torch.manual_seed(0)
    clip = embedded.clip_model(TINY, len(vocab)).eval()
    embedded.save(folder, embedded.llava_model(TINY, clip, len(vocab)).eval(), clip, TINY, vocab, {})
    return load(folder)


def test_only_controls_are_asked_and_every_question_once_an_arm(loaded):
    assert {method.name for method in arms()} == set(ARMS)
    scenes, asked = benchmark("validation", 1, 0)
    some = [method for method in arms((64,)) if method.name != "random" or method.seed == 0]
    answers = ask(loaded, scenes, asked, some)
    assert len(answers) == len(some) * len(SUITES)
    assert set(answers["correct"]) <= {0.0, 1.0}
    table = suite_table(answers)
    assert list(table) == ["method", "keep", *SUITES, "all"]
    assert list(table["method"])[:2] == ["none", "blind"]


def answers_of(random_64, random_144, pool, blind):
    """Ten pictures in which an arm answers a given share of every suite's questions, the unpruned model nine of ten."""
    rows = []
    kept = {
        ("none", 0): 0.9,
        ("blind", 0): blind,
        ("random", 144): random_144,
        ("random", 64): random_64,
        ("pool", 144): pool,
    }
    for (method, keep), share in kept.items():
        rows += [
            (method, keep, 0, suite, row, float(row < 10 * share)) for suite in SUITES for row in range(10)
        ]
    return pd.DataFrame(rows, columns=["method", "keep", "seed", "suite", "picture", "correct"])


def test_the_table_holds_controls_against_what_was_asked():
    published = pd.DataFrame({"tokens": [64], "method": ["random"], "average_percent": [89.1]})
    table = calibration_table(answers_of(0.8, 0.8, 0.9, 0.3), published).set_index(["control", "keep"])
    row = table.loc["random", 64]
    assert row["retained"] == pytest.approx(8 / 9)
    assert row["published"] == pytest.approx(0.891)
    assert row["low"] < row["retained"] < row["high"]
    assert row["holds"] is True or row["holds"] == np.True_
    assert not table.loc["random", 144]["holds"]  # 8 of 9 is below 0.92
    assert table.loc["pool", 144]["holds"]
    gaps = table.loc["blind"]
    assert len(gaps) == len(SUITES)
    assert gaps["holds"].all()
    assert (
        not calibration_table(answers_of(0.8, 0.8, 0.9, 0.8), published)
        .set_index("control")
        .loc["blind"]["holds"]
        .any()
    )
    with pytest.raises(ValueError, match="must hold the arm none"):
        calibration_table(answers_of(0.8, 0.8, 0.9, 0.3).query("method != 'none'"), published)


def test_the_gate_asks_everything_and_names_what_is_missed(loaded):
    table = gate.gate_table(loaded, 2, Layout(), probed=8, competing=4).set_index("condition")
    assert len(table) == 2 * len(SUITES) + 2 + 5
    assert table.loc["accuracy relate", "asked"] == 0.85
    assert table.loc["accuracy where", "asked"] == 0.95
    assert set(table["met"]) <= {"met", "not met"}
    assert table.loc["accuracy read", "met"] == "not met"  # random weights
