"""The front page's answers: told out of the tables, absent without them, refused where one is missing."""

import shutil

import pandas as pd
import pytest

from lib.paths import FIGURES, ROOT, TABLES
from lib.study.pages import front

FILES = (
    "data/tables/accuracy.csv",
    "data/tables/seed_effects.csv",
    "data/tables/seed_properties.csv",
    "figures/30_shares.csv",
    "figures/D-11_countings.csv",
)


@pytest.fixture
def tree(tmp_path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "data" / "records" / "cost", tmp_path / "data" / "records" / "cost")
    return tmp_path


def test_numbers_follow_the_tables(tree):
    before = front.answers(tree)
    path = tree / FILES[0]
    table = pd.read_csv(path)
    wanted = (table["method"] == "desap") & (table["keep"] == 16) & (table["suite"] == "all")
    table.loc[wanted, ["accuracy", "low", "high"]] = 0.1234, 0.1, 0.2
    table.to_csv(path, index=False)
    after = front.answers(tree)
    changed = [line.split() for line in set(after.splitlines()) - set(before.splitlines())]
    assert changed == [
        [
            "|",
            "DeSAP",
            "|",
            "16",
            "|",
            "before",
            "the",
            "language",
            "model",
            "|",
            "0.123",
            "[0.100,",
            "0.200]",
            "|",
        ]
    ]


def test_a_cue_is_told_with_what_other_trainings_say():
    seeds = pd.DataFrame(
        [
            (f"share of the {cue} cue", training, holds)
            for cue, holds in zip(front.CUES, ("yes", "no effect", "differs", "yes"), strict=True)
            for training in ("0", "1", "2", "mean")
        ],
        columns=["effect", "training", "holds"],
    )
    told = front.which_cue(pd.read_csv(FIGURES / "30_shares.csv"), seeds)
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in told.splitlines()
        if "+0." in line or "-0." in line
    ]
    assert {cue: recurs for cue, _, recurs in cells} == {
        "text": "same sign in all 3 trainings",
        "saliency": "no effect in any of 3 trainings",
        "spatial": "differs among 3 trainings",
        "redundancy": "same sign in all 3 trainings",
    }
    gains = [float(gain.split()[0]) for _, gain, _ in cells]
    assert gains == sorted(gains, reverse=True)


@pytest.mark.parametrize(("found", "told"), [("unlike", True), ("like real models", False)])
def test_what_flatters_methods_inside_is_told_where_it_was_found(found, told):
    properties = pd.read_csv(TABLES / "seed_properties.csv").assign(found=found)
    said = front.which_tokens(pd.read_csv(TABLES / "accuracy.csv"), properties)
    assert f"this one is found {found} (" in said
    assert ("are flattered" in said) == told


def test_pictures_are_there():
    named = [part.split(")")[0] for part in front.answers(ROOT).split("](figures/")[1:]]
    assert len(named) == 4
    assert all((FIGURES / name).is_file() for name in named)


def test_without_tables_nothing_is_told_and_a_missing_one_is_named(tree, tmp_path_factory):
    assert front.answers(tmp_path_factory.mktemp("empty")) == ""
    (tree / "figures" / "30_shares.csv").unlink()
    with pytest.raises(ValueError, match=r"30_shares\.csv not found; run: make figures"):
        front.answers(tree)


def test_a_choice_with_two_rows_is_refused():
    table, properties = (pd.read_csv(TABLES / f"{name}.csv") for name in ("accuracy", "seed_properties"))
    with pytest.raises(ValueError, match="too many values"):
        front.which_tokens(pd.concat([table, table]), properties)
