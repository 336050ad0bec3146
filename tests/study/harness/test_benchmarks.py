"""The table of benchmarks: how rows of their files become prompts, and how answers are scored."""

import re
import shlex

import pytest
from typer.main import get_command

from lib.commands import app
from lib.paths import CLAIMS
from lib.pruning.methods import make
from lib.study.claims import read_claims
from lib.study.harness import plan
from lib.study.harness.benchmarks import IMAGES, NAMES, TABLE, chosen
from lib.study.harness.data_files import files_of
from lib.study.harness.questions import ask
from lib.study.harness.scoring import METRICS, Rows, circular, option_letter
from lib.study.pages import n50_other_models

ROWS = {row.name: row for row in TABLE}
LETTER = "Answer with the option's letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."
HUMANS = ["red"] * 10


@pytest.mark.parametrize(
    ("name", "row", "prompt", "answer"),
    [
        (
            "gqa",
            {"question": "what is it?", "answer": "a dog", "imageId": "n1"},
            f"what is it?\n{SHORT}",
            "a dog",
        ),
        (
            "mmbench",
            {
                **{"index": 7, "question": "which?", "hint": "Look.", "answer": "B", "image": None},
                **{"A": "one", "B": "two", "C": "three", "D": "nan"},
            },
            f"Look.\nwhich?\nA. one\nB. two\nC. three\n{LETTER}",
            "B",
        ),
        (
            "scienceqa",
            {"question": "which?", "choices": ["yes", "no"], "answer": 1, "hint": "A map.", "image": None},
            f"Context: A map.\nwhich?\nA. yes\nB. no\n{LETTER}",
            "B",
        ),
        (
            "seed",
            {
                **{
                    "question": "how many?",
                    "data_id": "d",
                    "question_type_id": 5,
                    "answer": "D",
                    "image": None,
                },
                **{"choice_a": "one", "choice_b": "two", "choice_c": "three", "choice_d": "four"},
            },
            f"how many?\nA. one\nB. two\nC. three\nD. four\n{LETTER}",
            "D",
        ),
        (
            "textvqa",
            {"question": "says?", "answers": HUMANS, "ocr_tokens": ["STOP", "{now}"], "image_id": "i"},
            f"says?\nReference OCR token: STOP, {{now}}\n{SHORT}",
            HUMANS,
        ),
        (
            "textvqa-plain",
            {"question": "says?", "answers": HUMANS, "image_id": "i"},
            f"says?\n{SHORT}",
            HUMANS,
        ),
        (
            "vizwiz",
            {"question": "what?", "answers": HUMANS, "question_id": "v"},
            f"what?\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n{SHORT}",
            HUMANS,
        ),
        (
            "vqav2",
            {"question": "what?", "answers": [{"answer": word} for word in HUMANS], "image_id": 3},
            f"what?\n{SHORT}",
            HUMANS,
        ),
    ],
)
def test_prompts_and_answers(name, row, prompt, answer):
    asked = ask(row, ROWS[name])
    assert (asked.prompt, asked.answer, asked.question) == (prompt, answer, row["question"])


@pytest.mark.parametrize(
    ("name", "row", "told"),
    [
        ("gqa", {"question": None, "answer": "a", "imageId": "n"}, "question is empty"),
        ("gqa", {"question": "a?", "answer": " ", "imageId": "n"}, "answer must be a text"),
        ("vizwiz", {"question": "a?", "answers": [], "question_id": "v"}, "answers must hold two or more"),
        (
            "scienceqa",
            {"question": "a?", "choices": ["x"], "answer": 0, "hint": ""},
            "fewer than two options",
        ),
        (
            "scienceqa",
            {"question": "a?", "choices": ["x", "y"], "answer": 2, "hint": ""},
            "one of A, B, got None",
        ),
    ],
)
def test_rows_that_cannot_be_asked(name, row, told):
    with pytest.raises(ValueError, match=told):
        ask(row, ROWS[name])


def test_the_table():
    assert len(set(NAMES)) == len(TABLE) == 12
    assert chosen("all") == chosen(",".join(IMAGES))
    assert {row.name for row in TABLE if row.media == "video"} == set(NAMES) - set(IMAGES)
    # The papers' mean: eight benchmarks of images, two of videos.
    eight = {"gqa", "mmbench", "mme", "pope", "scienceqa", "vqav2", "textvqa", "vizwiz"}
    assert {row.name for row in TABLE if row.averaged} == eight | {"msvd", "msrvtt"}
    for row in TABLE:
        assert row.metric in METRICS
        assert "{question}" in row.prompt
        assert ("{options}" in row.prompt) == bool(row.options)
        assert ("{ocr}" in row.prompt) == bool(row.ocr)
        assert row.split in row.files


def rows(predictions, answers, images=None, extra=None, correct=None):
    count = len(predictions)
    return Rows(predictions, answers, images or [""] * count, extra or [{}] * count, correct or [0.0] * count)


def test_scores_of_one_question():
    assert METRICS["exact"].one("Dog.", "dog", {}) == 1
    assert METRICS["vqa"].one("the two dogs!", ["2 dogs"] * 3 + ["cat"] * 7, {}) == pytest.approx(0.9)
    assert METRICS["textvqa"].one("joe's bar", ["Joe's bar"] * 10, {}) == 1
    assert METRICS["pope"].one("No, there is not.", "no", {}) == 1
    assert [METRICS["mme"].one(said, "Yes", {}) for said in ("Yes, it is", "no", "maybe")] == [1, 0, 0]
    options = {"A": "a red cat", "B": "a dog"}
    said = ("B", "B.", "I see a dog", "A dog", "a red cat and a dog", "C")
    assert [METRICS["mmbench"].one(text, "B", {"options": options}) for text in said] == [1, 1, 1, 0, 0, 0]
    assert METRICS["letter"].one("B", "B", {"options": options}) == 1


def test_scores_of_a_benchmark():
    assert METRICS["exact"].all(rows(["a", "b"], ["a", "c"], correct=[1.0, 0.0])) == {"accuracy": 0.5}
    number = [{"number": value} for value in (1, 1_000_001, 2, 1_000_002)]
    found = METRICS["mmbench"].all(rows([""] * 4, [""] * 4, extra=number, correct=[1.0, 1.0, 1.0, 0.0]))
    assert found == {"accuracy": 0.5, "single": 0.75, "rotations": 2.0}
    tasks = [{"category": task} for task in ("count", "count", "color", "color", "color")]
    mme = rows(["yes"] * 5, ["yes", "no"] * 2 + ["yes"], ["1", "1", "1", "1", "2"], tasks)
    assert METRICS["mme"].whole(mme) == [True] * 4 + [False]


def test_files_are_found_and_missed(tmp_path):
    of = ROWS["gqa"]
    with pytest.raises(
        FileNotFoundError, match=r"lmms-lab/GQA: no file .* run: hf download .*--local-dir .*GQA$"
    ):
        files_of(of, tmp_path)
    for pattern in of.patterns:
        (tmp_path / "GQA" / pattern).parent.mkdir(parents=True)
        (tmp_path / "GQA" / pattern.replace("*", "00000-of-00002")).touch()
    with pytest.raises(
        FileNotFoundError, match=r"part 1 of 2 of testdev_balanced_instructions/testdev-\*\.parquet is"
    ):
        files_of(of, tmp_path)
    for pattern in of.patterns:
        (tmp_path / "GQA" / pattern.replace("*", "00001-of-00002")).touch()
    assert [len(found) for found in files_of(of, tmp_path).values()] == [2, 2]


def test_files_in_the_hub_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    snapshot = tmp_path / "datasets--lmms-lab--POPE" / "snapshots" / "abc"
    (snapshot / "data").mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    (snapshot / "data" / "test-00000-of-00001.parquet").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert files_of(ROWS["pope"]) == {
        "data/test-*.parquet": [snapshot / "data" / "test-00000-of-00001.parquet"]
    }


@pytest.mark.parametrize("claim", ["D-5", "D-6", "D-15"])
def test_commands_that_would_judge_a_claim(claim):
    row = n50_other_models.judging(claim)
    register = read_claims(CLAIMS).set_index("id").loc[claim]
    assert register["verdict"] == "not testable here"
    assert len(n50_other_models.printed(claim)) == len(row.keep.split(","))
    for value in n50_other_models.printed(claim):
        assert claim == "D-15" or str(value) in register["published"]
    program, target, model, benchmarks, arguments = shlex.split(row.run)
    assert (program, target, model) == ("make", "live", f"MODEL={row.model}")
    words = [row.model, "--benchmarks", benchmarks.removeprefix("BENCHMARKS=")]
    words += shlex.split(arguments.removeprefix("ARGS="))
    given = get_command(app).commands["live"].make_context("live", words).params
    (method,) = map(plan.method_of, given["methods"].split(","))
    assert make(method[0], keep=9, **dict(method[1])).name == "desap"
    assert [plan.budget_of(word) for word in given["keep"].split(",")]
    assert row.fetch[0] == f"hf download {row.model}"
    for of in chosen(row.benchmarks):
        assert (
            any(of.repo and re.search(rf"dataset {of.repo} --include", line) for line in row.fetch)
            or not of.repo
        )
    if claim == "D-15":  # the paper's numbers: 71.2 of 70.2 and 57.0 of 57.3
        assert n50_other_models.printed(claim) == [round(50 * (71.2 / 70.2 + 57.0 / 57.3), 1)]


def test_other_claims_have_no_command():
    with pytest.raises(ValueError, match="claim must be one of D-5, D-6, D-15, got 'D-1'"):
        n50_other_models.judging("D-1")


def test_option_letter_as_mmbench_reads_it():
    options = {"A": "red", "B": "Blue", "C": "dark blue"}
    said = {
        "B": "B",
        "(C)": "C",
        "The answer is C.": "C",
        "Answer :B": "B",
        "it is red": "A",
        "BLUE": "B",
        "dark blue": None,  # holds "blue" too
        "A or B": None,
        "A thing that is red": "A",  # the article is no choice, the text is
        "A thing that is nice": None,
        "E": "E",
    }
    assert {text: option_letter(text, options) for text in said} == said


def test_circular_needs_every_rotation():
    index = [3, 1_000_003, 2_000_003, 4, 1_000_004, 5]
    found = circular([1, 1, 1, 1, 0, 1], index)
    assert found == {"accuracy": pytest.approx(2 / 3), "single": pytest.approx(5 / 6), "rotations": 2.0}
