"""Identity trials: inputs on which likeness decides, ties refused, an error in the selection seen."""

import numpy as np
import pytest

from lib.study import records
from lib.study.claims import judge
from lib.study.parity import oracles
from lib.study.scenes import claim_measures


def test_trials_agree_and_are_judged(tmp_path):
    grids = {(24, 24): (2, 57), (5, 9): (6, 13)}
    rows = records.read(claim_measures.record_identity(tmp_path, seed=1, grids=grids), "measure")
    assert (rows["value"] == 1).all()
    assert rows.groupby("suite").size().to_dict() == {"24x24": 2, "5x9": 6}
    nothing = records.empty()
    assert judge("identity nms_picks_equal", "constructed", nothing, "identity", rows) == "supported"


def test_a_wrong_selection_is_seen(monkeypatch):
    def plain(scores, features, grid, keep, order):
        return scores.argsort(dim=-1, descending=True)[:, :keep]

    monkeypatch.setattr(claim_measures, "adaptive_nms", plain)
    rows = claim_measures.compare_picks((12, 12), 14, 5)
    assert (rows["value"] == 0).all()


def test_likeness_decides_the_trials():
    rng = np.random.default_rng(0)
    changed = 0
    for _ in range(5):
        scores, features = claim_measures.trial(rng, (12, 12))
        picks = oracles.adaptive_nms(scores, features, (12, 12), 29)
        blind = oracles.adaptive_nms(scores, np.ones_like(features), (12, 12), 29)
        changed += picks != blind
    assert changed == 5


def test_ties_are_found():
    scores, features = np.array([3, 2, 2, 1], np.float32), np.eye(4, dtype=np.float32)
    assert claim_measures.least_gap(scores, features, (2, 2), [0, 1]) == 0
    scores[2] = 1
    assert claim_measures.least_gap(scores, features, (2, 2), [0, 1]) == pytest.approx(1 / 3)
