"""Where budgets go and which methods agree, told and drawn from shares laid by hand."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lib.study.pages import n30_overlap, n30_placement
from lib.study.scenes import placement


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
    return n30_placement.placement(Few(*frames))


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
    table = n30_overlap.overlaps(Few(*frames))
    assert sorted(table.index) == ["DeSAP", "FastV", "[CLS] top-k", "uniform grid, pooling"]
    assert table.loc["FastV", "[CLS] top-k"] == table.loc["[CLS] top-k", "FastV"] == pytest.approx(0.8)
    assert np.diag(table).tolist() == [1] * 4
    assert [set(group) for group in n30_overlap.families(table)] == [{"FastV", "[CLS] top-k"}]
    assert n30_overlap.families(table, 0.9) == []
    told = n30_overlap.overlap_sentence(table, 16, 144)
    assert "uniform grid and pooling stand at the same places by construction" in told
    assert "2 rows belong to no such family" in told
    assert "nearest with 80%" in told
    assert "two random choices would share 11%" in told
    figure = n30_overlap.draw_overlaps(table, 16, 144)
    assert figure.axes[0].get_title().startswith("1 family shares half of its 16 tokens or more (framed)")
    assert len(figure.axes[0].patches) == 1
    plt.close(figure)


def test_no_record_is_told():
    with pytest.raises(ValueError, match="run this notebook with source live first"):
        n30_placement.placement(Few(rows_of("cosine_residual", [1.0, 0.5])))
