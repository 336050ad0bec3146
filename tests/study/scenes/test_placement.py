"""Where a budget goes, on tokens laid by hand, and a small live record."""

import numpy as np
import pytest
import torch

from lib.models import checkpoints
from lib.paths import MODEL
from lib.study import records
from lib.study.scenes import placement, split
from lib.study.scenes.capture import sample


@pytest.fixture(scope="module")
def asked():
    return sample(5)


def test_masks_mark_what_they_say(asked):
    norms = np.arange(144.0)[None].repeat(len(asked), 0)
    marked = placement.masks(asked, norms)
    assert marked["border"].sum(1).tolist() == [44] * len(asked)
    assert marked["border"][0].reshape(12, 12)[0].all()
    assert not marked["border"][0].reshape(12, 12)[1:-1, 1:-1].any()
    assert marked["bottom"][0].tolist() == [False] * 108 + [True] * 36
    assert marked["high_norm"][0].tolist() == [False] * 130 + [True] * 14
    assert not (marked["evidence"] & marked["distractors"]).any()
    items = split.test_set()[0].box[asked[0].picture]
    assert (marked["evidence"] | marked["distractors"])[0].sum() >= len(items)


def test_shares_and_redundancy_by_hand():
    marked = {"evidence": np.array([[True, True, False, False]])}
    features = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [3.0, 4.0]]])
    found = placement.shares(torch.tensor([[0, 1, 2]]), marked, features)
    assert found["evidence"].tolist() == pytest.approx([2 / 3])
    assert found["redundancy"].tolist() == pytest.approx([(1 + 1 + 0) / 3])  # the third is like neither
    found = placement.shares(torch.tensor([[2, 3]]), marked, features)
    assert found["evidence"].tolist() == [0]
    assert found["redundancy"].tolist() == pytest.approx([0.8])


def test_overlap_counts_common_tokens():
    left = torch.tensor([[0, 1, 2], [3, 4, 5]])
    assert placement.overlap(left, left).tolist() == [1, 1]
    assert placement.overlap(left, torch.tensor([[3, 4, 5], [3, 8, 9]])).tolist() == pytest.approx([0, 1 / 3])


def test_a_live_record_is_written_once_and_guarded(tmp_path, monkeypatch):
    path = placement.record_placement(tmp_path, 3, MODEL, ("cls", "fastv"))
    rows = records.read(path, "measure")
    names = set(rows["measure"])
    assert {f"placement_{q}:{m}" for q in placement.QUANTITIES for m in ("oracle", "cls", "fastv")} <= names
    assert {name for name in names if name.startswith("overlap")} == {
        "overlap:oracle:cls",
        "overlap:oracle:fastv",
        "overlap:cls:fastv",
    }
    assert rows["value"].between(-1, 1).all()
    values = rows.set_index(["measure", "question_id"])["value"]
    mine = values["placement_evidence:oracle"]
    assert (mine >= values["placement_evidence:cls"]).all()  # nothing can hold more of it than the oracle
    stamp = path.stat().st_mtime_ns
    placement.record_placement(tmp_path, 3, MODEL, ("cls", "fastv"))
    assert path.stat().st_mtime_ns == stamp
    told = records.read_provenance(path)
    assert (told["pictures"], told["seed"], told["device"], told["dtype"]) == (3, -1, "cpu", "float32")
    assert told["weights"] == checkpoints.weights_digest(MODEL)
    assert told["config"]["methods"]["cls"]["keep"] == 16
    with pytest.raises(ValueError, match=r"placement.parquet: made with other pictures; remove it"):
        placement.record_placement(tmp_path, 4, MODEL, ("cls", "fastv"))
    with pytest.raises(ValueError, match="made with other methods"):
        placement.record_placement(tmp_path, 3, MODEL, ("cls",))
    monkeypatch.setattr(placement, "weights_digest", lambda folder: "another")
    with pytest.raises(ValueError, match="made with other weights"):
        placement.record_placement(tmp_path, 3, MODEL, ("cls", "fastv"))


def test_staged_methods_and_random_are_measured_like_the_others(tmp_path):
    path = placement.record_placement(tmp_path, 2, MODEL, ("sparsevlm", "random"))
    values = records.read(path, "measure").groupby("measure")["value"]
    assert values.count().eq(2).all()
    assert values.mean()["placement_border:chance"] == pytest.approx(44 / 144)
    assert values.mean()["placement_high_norm:chance"] == pytest.approx(14 / 144)
    assert records.read_provenance(path)["seed"] == 0
