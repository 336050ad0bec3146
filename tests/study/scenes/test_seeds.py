"""Several trainings: which arms are asked, what counts as recurring, and one model never judged with another's answers."""

import json

import numpy as np
import pandas as pd
import pytest

from lib.paths import MODEL
from lib.study import records
from lib.study.arms import TIGHT
from lib.study.cards import model_name
from lib.study.claims import evidence_of_tier, read_claims
from lib.study.rules import parse
from lib.study.scenes import retrieval, seeds
from testkit.commands import command
from testkit.frames import accuracy_rows, measure_rows


def test_every_arm_of_a_rule_and_of_an_effect_is_asked_once():
    arms = seeds.seed_arms()
    asked = {(arm.label, arm.method.keep) for arm in arms}
    assert len(arms) == len(set(arms))
    for rule in read_claims()["rule"]:
        for clause in parse(rule):
            for arm in (clause.left, clause.right) if clause.kind == "order" else ():
                assert (arm, clause.budget) in asked or (arm, None) in asked
    for effect in seeds.EFFECTS:
        for arm in (effect.left, effect.right):
            assert (arm, TIGHT) in asked or (arm, None) in asked
    assert sum(label.startswith("multicue") for label, _ in asked) == 15


def test_a_model_is_named_by_its_training_seed(tmp_path):
    assert model_name(MODEL) == "scenes"
    card = {"sizes": {}, "tower": {"seed": 2}, "decoder": {"seed": 2}}
    (tmp_path / "training.json").write_text(json.dumps(card))
    assert model_name(tmp_path) == "scenes-2"


def test_the_shipped_model_is_not_recorded_as_a_further_one():
    done = command("seeds", MODEL)
    assert done.exit_code == 2
    assert "seed 0 is the shipped model" in done.stderr
    done = command("seeds", "nowhere")
    assert done.exit_code == 2
    assert "error: " in done.stderr


def test_answers_of_two_models_are_never_judged_together():
    rows = pd.concat([accuracy_rows("none", 144, 0.9, model=name) for name in ("scenes", "scenes-1")])
    with pytest.raises(ValueError, match="scenes and scenes-1; judge each model alone"):
        evidence_of_tier("trained-small", rows, records.empty("measure"))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        ([0.1, 0.2, 0.01], [0.3, 0.4, 0.2], "yes"),
        ([-0.3, -0.2, -0.4], [-0.1, -0.1, -0.2], "yes"),
        ([-0.1, -0.2, 0.0], [0.1, 0.1, 0.2], "no effect"),
        ([0.1, -0.2, 0.1], [0.3, 0.1, 0.2], "differs"),
        ([0.1, -0.2, 0.1], [0.3, -0.1, 0.2], "differs"),
    ],
)
def test_an_effect_recurs_when_every_interval_lies_on_one_side(low, high, said):
    assert seeds._holds(pd.DataFrame({"low": low, "high": high})) == said


def test_gate_counts_retrieval_both_ways():
    both = [accuracy_rows("none", 144, 0.99), accuracy_rows("blind", 0, 0.3)]
    found = [measure_rows(retrieval.IMAGE, np.ones(40)), measure_rows(retrieval.TEXT, np.arange(40) % 2)]
    table = seeds.gates({7: (pd.concat(both), pd.concat(found))}).set_index("suite")
    assert set(table["training"]) == {7}
    assert table["gate"].to_dict() == {
        "exists": "met",
        "read": "met",
        "retrieval, image to text": "met",
        "retrieval, text to image": "not met",
    }


def test_recorded_trainings_are_complete_and_of_one_model_each():
    for seed in seeds.recorded():
        accuracy, measured = seeds.read(seed)
        name = f"scenes-{seed}" if seed else "scenes"
        assert set(accuracy["model"]) == {name}
        assert set(measured["model"]) == {name, "constructed"}
        assert seeds.card_of(seed)["tower"]["seed"] == seed
        assert accuracy.groupby(["arm", "keep", "seed"]).size().unique().tolist() == [1800]


def test_committed_records_of_a_training_hold_all_questions(tmp_path):
    (tmp_path / "training.json").write_text(json.dumps({"sizes": {}, "tower": {"seed": 7}, "decoder": {}}))
    with pytest.raises(ValueError, match="--out must name a folder, as questions is 20"):
        seeds.record(tmp_path, 20)
    assert not seeds.folder_of(7).exists()
