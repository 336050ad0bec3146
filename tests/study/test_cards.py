"""Training records: what is read, what a model is called, which models are evidence."""

import json

import pytest

from lib.study import cards
from testkit.builders import card_of


def test_a_card_is_read_whole_or_not_at_all(tmp_path):
    with pytest.raises(ValueError, match=r"no training\.json"):
        cards.read_card(tmp_path)
    (tmp_path / "training.json").write_text(json.dumps({"sizes": {}}))
    with pytest.raises(ValueError, match="lacks tower, decoder"):
        cards.read_card(tmp_path)
    card = card_of(shape=0.97, color=0.5)
    (tmp_path / "training.json").write_text(json.dumps(card))
    assert cards.read_card(tmp_path) == card


def test_a_further_training_is_evidence_once_its_card_lies_beside_its_records(tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "SEEDS", tmp_path)
    assert cards.trained() == ["scenes"]
    (tmp_path / "3").mkdir()
    card = card_of()
    card["tower"]["seed"] = 3
    (tmp_path / "3" / "training.json").write_text(json.dumps(card))
    assert cards.trained() == ["scenes", "scenes-3"]
