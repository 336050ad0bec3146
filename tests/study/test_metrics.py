"""Scoring rules against hand-worked cases."""

import numpy as np
import pytest

from lib.study import metrics


def test_exact_match_ignores_case_blanks_and_full_stop():
    scores = metrics.exact_match([" Red.", "blue", "7"], ["red", "green", "7"])
    assert scores.tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("The Cat", "cat"),
        ("two dogs", "2 dogs"),
        ("dont", "don't"),
        ("couldn'tve", "couldn't've"),
        ("red/blue", "red blue"),
        ("yes!", "yes"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("st. louis", "st louis"),
        ("none", "0"),
        ("a\n b", "b"),
        ("its", "its"),
    ],
)
def test_normalise(raw, plain):
    assert metrics.normalise(raw).replace("  ", " ") == plain


def test_vqa_accuracy_counts_the_other_humans():
    humans = ["red"] * 3 + ["blue"] * 7
    # For the 3 who said red, 2 others agree: 2/3; for the 7 others, 3 agree: 1.
    red = (3 * 2 / 3 + 7 * 1) / 10
    assert metrics.vqa_accuracy(["red", "The blue", "green"], [humans] * 3) == pytest.approx([red, 1, 0])


def test_vqa_accuracy_refuses_a_single_text():
    with pytest.raises(ValueError, match="answers needs two or more"):
        metrics.vqa_accuracy(["red"], ["red"])


def test_pope_by_hand():
    found = metrics.pope(["Yes, it is", "yes", "No.", "There is not"], ["yes", "no", "yes", "no"])
    assert found == {"accuracy": 0.5, "precision": 0.5, "recall": 0.5, "f1": 0.5, "yes_ratio": 0.5}


def test_pope_without_any_yes_has_no_division_by_zero():
    found = metrics.pope(["no", "no"], ["yes", "no"])
    assert (found["precision"], found["recall"], found["f1"]) == (0.0, 0.0, 0.0)


def test_multiple_choice_reads_letters():
    said = ["B", "(B)", "B. a cat", "The answer is B.", "Because", "A or B", "banana"]
    assert metrics.multiple_choice(said, ["B"] * 7).tolist() == [1, 1, 1, 1, 0, 0, 0]


def test_multiple_choice_refuses_a_letter_out_of_play():
    with pytest.raises(ValueError, match="'D'"):
        metrics.multiple_choice(["A"], ["D"], choices=3)


def test_mme_needs_both_questions_of_an_image():
    found = metrics.mme(["yes", "no", "yes", "maybe"], ["yes", "no", "yes", "no"], [1, 1, 2, 2])
    assert found == {"accuracy": 0.75, "accuracy_plus": 0.5, "score": 125.0}
    with pytest.raises(ValueError, match="image must name each image twice"):
        metrics.mme(["yes"], ["yes"], [1])


@pytest.mark.parametrize("score", [metrics.exact_match, metrics.pope, metrics.multiple_choice])
def test_lengths_must_agree(score):
    with pytest.raises(ValueError, match="differ in length"):
        score(["yes"], ["yes", "no"])
    with pytest.raises(ValueError, match="empty"):
        score([], [])


def test_scores_are_arrays():
    assert isinstance(metrics.exact_match(["a"], ["a"]), np.ndarray)
