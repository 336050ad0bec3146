"""How a training is told, on a card laid by hand."""

import pandas as pd
import pytest

from lib.study.pages import n80_training
from lib.study.scenes import gate
from testkit.builders import card_of


def test_gate_names_what_is_missed():
    rows = [("none", "read", 0.95), ("blind", "read", 0.1), ("none", "count", 0.95), ("blind", "count", 0.8)]
    table = pd.DataFrame(
        [(arm, suite, 9, value, value, value) for arm, suite, value in rows],
        columns=["method", "suite", "n", "accuracy", "low", "high"],
    )
    found = gate.gate_table(table)
    assert dict(zip(found["suite"], found["gate"], strict=True)) == {"read": "met", "count": "not met"}
    assert n80_training.gate_sentence(found).endswith("is met on 1 of 2 suites; not met: count.")
    with pytest.raises(ValueError, match="no arm blind"):
        gate.gate_table(table[table["method"] == "none"])


def test_a_card_is_told():
    card = card_of(shape=0.97, color=0.5)
    assert n80_training.phase_table(card)["steps"].sum() == 4
    assert n80_training.probe_table(card)["met"].tolist() == ["met", "not met"]
    assert n80_training.probe_table(card_of(**{"-2": {"shape": 0.97}}))["attribute"].tolist() == ["shape"]
    assert "12 x 12 visual tokens" in n80_training.recipe_sentence(card)
    assert "decoder loss 1.00" in n80_training.curve_caption(card)
    assert set(n80_training.curve_frame(card)["quantity"]) == {"contrast", "loss", "validation read"}
