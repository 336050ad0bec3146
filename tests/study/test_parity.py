"""Every method with a release against its transcription, and the comparison itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from lib.pruning import methods
from lib.study.parity import table as parity
from lib.study.parity.decoder import run_library
from lib.study.parity.trial import KINDS, SIZES, Case, Draw, Told, parting
from testkit.commands import command


@pytest.mark.parametrize("case", parity.CASES, ids=lambda case: f"{case.method}:{case.setting}")
def test_a_method_parts_nowhere_from_its_release(case):
    if case.ask is run_library:  # a whole model in NumPy: the small pictures alone; the table holds all
        case = dataclasses.replace(case, sizes=case.sizes[-1:])
    row = parity.compare(case, seeds=1)  # the table holds all seeds
    assert row["parts_at"] == "none"
    assert row["equal"] + row["declared"] == row["trials"] == len(KINDS) * len(case.sizes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_is_the_same_twice_and_another_for_another_seed(kind):
    one, again, other = (Draw(kind, (12, 12), 16, seed) for seed in (0, 0, 1))
    for name in ("features", "saliency", "keys", "sentence"):
        assert np.array_equal(one.see(name), again.see(name))
        assert not np.array_equal(one.see(name), other.see(name))
    assert one.see("saliency").min() > 0
    assert np.linalg.matrix_rank(Draw(kind, (24, 24), 192, 0).see("projected")) == 256


def test_what_parts_is_told_by_its_first_step():
    rule = Told({"score": np.array([1.0, 2.0]), "kept": [1], "features": np.ones((1, 2))})
    same = {"score": np.array([1.0, 2.0 + 1e-6]), "kept": [1], "features": np.ones((1, 2)), "more": [3]}
    assert parting(Told(same), rule) == "none"
    assert parting(Told({**same, "score": np.array([1.0, 2.1])}), rule) == "score"
    assert parting(Told({**same, "score": np.array([1.0])}), rule) == "score"
    assert parting(Told({**same, "kept": [0]}), rule) == "kept"
    assert parting(Told({**same, "kept": [0], "features": np.zeros((1, 2))}), rule) == "kept"
    assert parting(Told({**same, "features": np.zeros((1, 2))}), rule) == "features"
    assert parting(Told({"score": same["score"], "kept": [1]}), rule) == "features"


def case(wrong: str) -> Case:
    """[CLS] top-k beside a rule that is wrong, stops or is right."""

    def rule(draw: Draw) -> Told:
        kept = methods.make("cls", keep=draw.keep).choose(draw.cues).kept[0].tolist()
        return Told({"kept": kept[1:] if wrong == "wrong" else kept}, "stops" if wrong == "stops" else "")

    small = {"sizes": (SIZES[-1],), "settled": "x", "release": "nobody/nothing 0"}
    return Case(method="cls", rule=rule, **small)


def test_a_row_counts_equal_declared_and_other_trials():
    counted = {name: parity.compare(case(name), seeds=2) for name in ("right", "stops", "wrong")}
    told = {name: (row["equal"], row["declared"], row["parts_at"]) for name, row in counted.items()}
    assert told == {"right": (6, 0, "none"), "stops": (0, 6, "none"), "wrong": (0, 0, "kept")}
    assert {row["trials"] for row in counted.values()} == {6}


def test_the_command_writes_the_table(tmp_path, monkeypatch):
    small = [dataclasses.replace(each, sizes=each.sizes[-1:]) for each in parity.CASES[:2]]
    monkeypatch.setattr(parity, "CASES", tuple(reversed(small)))
    assert command("parity", "--out", tmp_path / "parity.csv", "--seeds", 1).exit_code == 0
    table = pd.read_csv(tmp_path / "parity.csv", keep_default_na=False)
    assert tuple(table.columns) == parity.COLUMNS
    assert table["method"].tolist() == [each.method for each in small]
    done = command("parity", "--out", tmp_path / "parity.csv", "--seeds", 0)
    assert done.exit_code == 2
    assert "seeds must be at least 1, got 0" in done.stderr


def test_rows_tell_what_the_table_counts(tmp_path):
    path = tmp_path / "parity.csv"
    with pytest.raises(ValueError, match=r"parity\.csv does not exist; make it: python -m lib parity"):
        parity.rows(path)
    fixed = {"release": "a/b 1", "settled_by": "x"}
    counts = [
        {"method": "cls", "setting": "", "trials": 72, "equal": 72, "declared": 0, "parts_at": "none"},
        {"method": "holov", "setting": "one", "trials": 72, "equal": 54, "declared": 18, "parts_at": "none"},
        {"method": "holov", "setting": "two", "trials": 9, "equal": 3, "declared": 2, "parts_at": "kept"},
    ]
    pd.DataFrame([{**row, **fixed} for row in counts]).to_csv(path, index=False)
    told = {row["name"]: row["parity"] for row in parity.rows(path)}
    assert tuple(told) == methods.NAMES
    assert told["cls"] == "72 of 72 trials equal"
    assert told["holov"] == (
        "one: 54 of 72 trials equal, 18 as declared; two: 3 of 9 trials equal, 2 as declared, 4 part at kept"
    )
    assert told["random"] == "no release to hold it against"


def test_the_committed_table_is_of_these_cases():
    table = parity.read()
    named = [(case.method, case.setting, case.release, case.settled) for case in parity.CASES]
    told = table[["method", "setting", "release", "settled_by"]].itertuples(index=False, name=None)
    assert sorted(told) == sorted(named)
    assert (table["equal"] + table["declared"] == table["trials"]).all()
    assert set(table["parts_at"]) == {"none"}
