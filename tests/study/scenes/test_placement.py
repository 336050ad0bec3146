"""Where a budget goes, on tokens laid by hand, and a small live record."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from lib.models import checkpoints
from lib.paths import MODEL
from lib.study import records
from lib.study.pages import n30_placement
from lib.study.scenes import evaluate, placement
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


# Share of the kept tokens in every quantity; two pictures a tenth apart, so that differences to chance are sure.
SHARES = {"cls": 0.1, "desap": 0.5, "pyramiddrop": 0.2, placement.CHANCE: 0.2}


@pytest.fixture(scope="module")
def spots():
    frames = [
        rows_of(f"placement_{quantity}:{arm}", [share - 0.05, share + 0.05] * 20)
        for arm, share in SHARES.items()
        for quantity in placement.QUANTITIES
    ]
    return placement.placement(Few(*frames))


def test_placements_are_averaged_ordered_and_held_against_chance(spots):
    assert spots["arm"].drop_duplicates().tolist() == ["desap", placement.CHANCE, "pyramiddrop", "cls"]
    mine = spots[spots["quantity"] == "evidence"].set_index("arm")
    for arm, share in SHARES.items():
        assert mine["estimate"][arm] == pytest.approx(share)
    assert mine["low"]["desap"] < 0.5 < mine["high"]["desap"]
    assert mine["chance"].drop(placement.CHANCE).tolist() == pytest.approx([0.2] * 3)
    assert (mine["p"][["desap", "cls"]] < 0.05).all()
    assert mine["p"]["pyramiddrop"] == 1
    assert np.isnan(mine["p"][placement.CHANCE])


def test_placement_is_told_and_drawn(spots):
    told = n30_placement.placement_sentence(spots, 16)
    assert told.startswith("**Answer.** DeSAP puts 50.0% [48.")
    assert (
        "of its 16 tokens on the boxes that answer; chance puts 20.0% there; [CLS] top-k puts fewer there"
        in told
    )
    assert (
        "Of 3 methods, 1 put more and 1 put fewer than chance (20.0%) on the outer ring; furthest from it, DeSAP"
        in told
    )
    title = n30_placement.placement_title(spots, 16)
    assert title.startswith("16 tokens, most on the answer: DeSAP 50% (chance 20%);\n1 of 3 methods favour")
    table = n30_placement.placement_table(spots)
    assert table.loc["DeSAP", "on other items"].startswith("0.50 [0.4")
    assert table.loc["DeSAP", "on other items"].endswith("]*")
    assert table.loc["PyramidDrop", "on other items"].endswith("]")
    figure = n30_placement.draw_placement(spots, 16)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "DeSAP",
        "PyramidDrop",
        "[CLS] top-k",
    ]
    plt.close(figure)


def test_methods_without_a_find_are_told_too(spots):
    still = spots[spots["arm"].isin(["pyramiddrop", placement.CHANCE])]
    told = n30_placement.placement_sentence(still, 16)
    assert told == (
        "**Answer.** No method puts more of its 16 tokens on the boxes that answer than chance; chance puts 20.0% there."
    )
    assert "no method finds the answer" in n30_placement.placement_title(still, 16)


def test_worth_is_a_rank_correlation(spots):
    more = [spots.assign(arm=spots["arm"] + str(place)) for place in range(2)]
    frame = pd.concat(more, ignore_index=True)
    arms = frame.loc[~frame["arm"].str.startswith("chance"), "arm"].drop_duplicates()
    study = Few(rows_of("none", [0.0]))
    study.table = pd.DataFrame({"method": arms, "keep": 16, "suite": "all"})
    study.table["accuracy"] = arms.str[:-1].map({"cls": 0.2, "pyramiddrop": 0.5, "desap": 0.9})
    told = n30_placement.worth_sentence(frame, study, 16)
    assert "Over 6 methods" in told
    assert "by a rank correlation (Spearman) of +1.00, and with the likeness" in told
    assert "Too few" in n30_placement.worth_sentence(spots, study, 16)


def test_overlaps_bring_families_together():
    pairs = {("cls", "desap"): 0.1, ("cls", "fastv"): 0.8, ("desap", "fastv"): 0.2}
    pairs |= {("pool", "uniform"): 1.0}
    pairs |= {(name, grid): 0.3 for name in ("cls", "desap", "fastv") for grid in ("pool", "uniform")}
    frames = [rows_of(f"overlap:{left}:{right}", [value] * 2) for (left, right), value in pairs.items()]
    table = placement.overlaps(Few(*frames))
    assert sorted(table.index) == ["DeSAP", "FastV", "[CLS] top-k", "uniform grid, pooling"]
    assert table.loc["FastV", "[CLS] top-k"] == table.loc["[CLS] top-k", "FastV"] == pytest.approx(0.8)
    assert np.diag(table).tolist() == [1] * 4
    assert [set(group) for group in placement.families(table)] == [{"FastV", "[CLS] top-k"}]
    assert placement.families(table, 0.9) == []
    told = n30_placement.overlap_sentence(table, 16, 144)
    assert "uniform grid and pooling stand at the same places by construction" in told
    assert "2 rows belong to no such family" in told
    assert "nearest with 80%" in told
    assert "two random choices would share 11%" in told
    figure = n30_placement.draw_overlaps(table, 16, 144)
    assert figure.axes[0].get_title().startswith("1 family shares half of its 16 tokens or more (framed)")
    assert len(figure.axes[0].patches) == 1
    plt.close(figure)


def test_no_record_is_told():
    with pytest.raises(ValueError, match="run this notebook with source live first"):
        placement.placement(Few(rows_of("cosine_residual", [1.0, 0.5])))
