"""The cue study: additive worlds give back their parts, labels are read, gaps are refused."""

import numpy as np
import pandas as pd
import pytest

from lib.study import arms, factorial, records
from lib.study.factorial import COALITIONS, CUES


def made(worth, budgets=(8, 16), pictures=40, seeds=(0, 1)):
    """Records in which a combination's score on a question is `worth(cues)` plus noise of the question alone."""
    rng, rows = np.random.default_rng(0), []
    noise = rng.uniform(-0.05, 0.05, (2, pictures))
    for arm in arms.factorial_arms(budgets, seeds):
        cues = factorial.coalition(records.arm_label(arm.method))
        for place, suite in enumerate(("exists", "read")):
            for picture in range(pictures):
                rows.append(
                    {
                        "model": "made",
                        "arm": records.arm_label(arm.method),
                        "keep": arm.method.keep,
                        "suite": suite,
                        "question_id": f"{picture}-{suite}",
                        "image_id": str(picture),
                        "seed": arm.seed,
                        "correct": worth(cues) + noise[place, picture],
                    }
                )
    return pd.DataFrame(rows)


def test_arms_cover_every_combination_once():
    made = arms.factorial_arms((16, 32), seeds=(0, 1, 2))
    labels = [records.arm_label(arm.method) for arm in made if arm.method.keep == 16]
    assert len(made) == 2 * (15 + 3)
    assert {factorial.coalition(label) for label in labels} == set(COALITIONS)
    assert factorial.coalition("multicue/spatial=False,text=False") == (0, 1, 0, 1)
    assert factorial.coalition("multicue/radius=3.0") is None
    assert factorial.coalition("desap") is None


def test_an_additive_world_gives_back_its_parts():
    value = {"text": 0.2, "saliency": 0.1, "spatial": 0.05, "redundancy": -0.03}
    table = factorial.wide(
        made(lambda cues: 0.3 + sum(on * value[c] for on, c in zip(cues, CUES, strict=True)))
    )
    found = factorial.effects(table).set_index(["keep", "suite", "kind", "cue"])["estimate"]
    for kind in ("shapley", "main"):
        for cue in CUES:
            assert found[16, "all", kind, cue] == pytest.approx(value[cue])
    assert found.xs("interaction", level="kind").abs().max() < 1e-9


def test_shapley_shares_sum_up_and_split_a_joint_gain():
    def worth(cues):
        return 0.2 + 0.4 * (cues[0] and cues[1])

    table = factorial.wide(made(worth))
    found = factorial.effects(table).set_index(["keep", "suite", "kind", "cue"]).sort_index()
    share = found["estimate"][8, "read", "shapley"]
    assert share.sum() == pytest.approx(0.4)
    assert share["text"] == pytest.approx(share["saliency"]) == pytest.approx(0.2)
    joint = found["estimate"][8, "read", "interaction"]
    assert joint["text x saliency"] == pytest.approx(0.4)
    assert joint["text x spatial"] == pytest.approx(0.0)
    assert (found["low"] <= found["estimate"] + 1e-9).all()


def test_weights_of_every_contrast_sum_to_zero():
    for over in factorial.contrasts().values():
        assert over.sum() == pytest.approx(0.0)


def test_table_has_the_contract():
    table = factorial.accuracy(factorial.wide(made(lambda cues: 0.5)))
    assert tuple(table.columns) == factorial.COLUMNS
    assert len(table) == 16 * 2 * 3
    assert set(table["suite"]) == {"all", "exists", "read"}


def test_a_missing_combination_is_refused():
    rows = made(lambda cues: 0.5)
    with pytest.raises(ValueError, match="records lack the combination"):
        factorial.wide(rows[rows["arm"] != "multicue"])
    gone = (rows["arm"] == "multicue") & (rows["keep"] == 8)
    with pytest.raises(ValueError, match="records at keep=8 lack a combination"):
        factorial.wide(rows[~gone])
