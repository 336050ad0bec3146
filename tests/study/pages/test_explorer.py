"""The explorer's data: what it shows is what the committed records say."""

import json

import numpy as np
import pytest

from lib.paths import RECORDS
from lib.study import records
from lib.study.pages import explorer
from lib.study.scenes.capture import one_question
from lib.study.scenes.split import TEST_SEED
from testkit.commands import command


@pytest.fixture(scope="module")
def found():
    return explorer.explore(explorer.questions(2), methods=("desap", "fastv"), budgets=(32, 16))


@pytest.mark.parametrize("method", ["desap", "fastv"])
@pytest.mark.parametrize("keep", [16, 32])
def test_answers_and_kept_tokens_are_those_of_the_records(found, method, keep):
    rows = records.read(RECORDS / "accuracy" / f"{method}-k{keep}.parquet").set_index("question_id")
    for picture, shown in enumerate(found["pictures"]):
        assert len(shown["questions"]) == 2
        for question in shown["questions"]:
            row = rows.loc[f"test-{TEST_SEED}-{picture:04d}-{question['suite']}"]
            run = question["runs"][method][str(keep)]
            assert (question["text"], question["right"]) == (row["question"], row["answer"])
            assert run["answer"] == row["prediction"]
            assert len(run["kept"]) == len(set(run["kept"])) == keep
            evidence = one_question(picture, question["suite"]).evidence
            if evidence.any():
                share = evidence[run["kept"]].sum() / evidence.sum()
                np.testing.assert_allclose(share, row["kept_on_evidence"])


def test_document_is_plain_json_with_pictures_inside(found):
    again = json.loads(json.dumps(found))
    assert again == found
    assert again["grid"] == [12, 12]
    assert again["budgets"] == [16, 32]
    assert all(picture["png"].startswith("data:image/png;base64,") for picture in again["pictures"])
    boxes = [box for shown in again["pictures"] for one in shown["questions"] for box in one["boxes"]]
    assert boxes
    assert all(0 <= left < right <= 1 and 0 <= top < bottom <= 1 for left, top, right, bottom in boxes)


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="pictures must be at most 300, got 301"):
        explorer.questions(301)
    done = command("explorer", "--out", tmp_path / "a.txt")
    assert done.exit_code == 2
    assert "out must be a .json file" in done.stderr
    assert command("explorer", "--out", tmp_path / "a.json", "--pictures", 0).exit_code == 2
