"""Where a budget goes, on tokens laid by hand, and a small live record."""

import numpy as np
import pandas as pd
import pytest
import torch

from lib.study import evaluate, placement, records
from lib.study.capture import sample
from lib.study.evaluate import MODEL


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
    items = evaluate.test_set()[0].box[asked[0].picture]
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


def test_a_live_record_is_written_once_and_guarded(tmp_path):
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
    with pytest.raises(ValueError, match="other weights or questions"):
        placement.record_placement(tmp_path, 4, MODEL, ("cls",))


def rows_of(name, values):
    frame = pd.DataFrame(
        {"measure": name, "image_id": [f"p{i}" for i in range(len(values))], "value": values}
    )
    return frame.assign(suite="exists", question_id=frame["image_id"], model="scenes")


class Few:
    """As much of a study as the summaries read."""

    seed = 0

    def __init__(self, *frames):
        self.measures = pd.concat(frames, ignore_index=True)


def test_summaries_average_order_and_tell():
    shares = {"cls": 0.1, "desap": 0.5, placement.CHANCE: 0.2}
    frames = [
        rows_of(f"placement_{quantity}:{arm}", [share - 0.05, share + 0.05])
        for arm, share in shares.items()
        for quantity in placement.QUANTITIES
    ]
    frame = placement.placement(Few(*frames))
    assert frame["arm"].drop_duplicates().tolist() == ["desap", placement.CHANCE, "cls"]
    assert frame.loc[0, "estimate"] == pytest.approx(0.5)
    told = placement.placement_sentence(frame, 16)
    assert "DeSAP puts 50.0% on the boxes that answer, where chance puts 20.0%; [CLS] top-k put fewer" in told
    figure = placement.draw_placement(frame, 16)
    assert "DeSAP puts most on the answer's place, 50%" in figure.get_suptitle()
    pairs = [("cls", "desap", 0.1), ("cls", "fastv", 0.8), ("desap", "fastv", 0.2)]
    table = placement.overlaps(Few(*(rows_of(f"overlap:{a}:{b}", [v, v]) for a, b, v in pairs)))
    assert table.loc["FastV", "[CLS] top-k"] == table.loc["[CLS] top-k", "FastV"] == pytest.approx(0.8)
    assert abs(list(table.index).index("FastV") - list(table.index).index("[CLS] top-k")) == 1
    assert "[CLS] top-k and FastV share 80% of their 16 tokens" in _either(table)
    assert (
        placement.draw_overlaps(table, 16, 144).axes[0].get_title().endswith("two random choices share 11%")
    )


def _either(table):
    told = placement.overlap_sentence(table, 16, 144)
    return told.replace("FastV and [CLS] top-k share", "[CLS] top-k and FastV share")
