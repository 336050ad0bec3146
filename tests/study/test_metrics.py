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
        ("none, of them", "0 of them"),
        ("a.b.", "ab"),
        ("$3.50", "$3.50"),
        ("well-known", "well known"),
        ("well - known", "well known"),
        ("1,000 (approx)", "1000 approx"),
        ("she'dve", "she'd've"),
        ("couldntve", "couldntve"),  # the official table restores one apostrophe, never two
        ("im", "im"),  # and finds no word with a capital I, as it looks in lower case
        ("shes", "shes"),
        ("yall'll", "y'all'll"),
    ],
)
def test_normalise(raw, plain):
    assert metrics.normalise(raw).replace("  ", " ") == plain


def test_vqa_accuracy_counts_the_other_humans():
    humans = ["red"] * 3 + ["blue"] * 7
    # For the 3 who said red, 2 others agree: 2/3; for the 7 others, 3 agree: 1.
    red = (3 * 2 / 3 + 7 * 1) / 10
    assert metrics.vqa_accuracy(["red", "The blue", "green"], [humans] * 3) == pytest.approx([red, 1, 0])


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("red,blue", "redblue"),  # normalise alone would make two words of it
        ("Joe's Bar?", "joe 's bar"),
        ("The two\nDogs.", "2 dogs"),
    ],
)
def test_tokenised_as_textvqa(raw, plain):
    assert metrics.tokenised(raw) == plain
    assert metrics.tokenised(plain.replace(" 's", "'s")) == plain


@pytest.mark.parametrize(("same", "score"), [(1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_ten_humans_leave_one_out(same, score):
    # With 3 alike: the 3 find 2 others (2/3 each), the 7 find 3 (1 each): (2 + 7) / 10.
    humans = ["two"] * same + [f"other {place}" for place in range(10 - same)]
    assert metrics.vqa_accuracy(["2"], [humans]) == pytest.approx([score])


def test_vqa_accuracy_refuses_a_single_text():
    with pytest.raises(ValueError, match="answers needs two or more"):
        metrics.vqa_accuracy(["red"], ["red"])


def test_pope_by_hand():
    found = metrics.pope(["Yes, it is", "yes", "No.", "There is not"], ["yes", "no", "yes", "no"])
    assert found == {"accuracy": 0.5, "precision": 0.5, "recall": 0.5, "f1": 0.5, "yes_ratio": 0.5}


def test_pope_without_any_yes_has_no_division_by_zero():
    found = metrics.pope(["no", "no"], ["yes", "no"])
    assert (found["precision"], found["recall"], found["f1"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("said", "yes"),
    [
        ("Yes", True),
        ("No", False),
        ("There is no dog.", False),
        ("It does not, no", False),
        ("Yes. There is no doubt", True),  # the first sentence decides
        ("No, there is.", False),
        ("nothing", True),  # whole words only
        ("", True),
    ],
)
def test_pope_reads_the_first_sentence(said, yes):
    assert metrics.pope([said], ["yes"])["yes_ratio"] == float(yes)


def test_pope_splits_weigh_the_same():
    category = ["random"] * 2 + ["popular"] * 4
    found = metrics.pope_by_category(["yes", "no"] + ["yes"] * 4, ["yes", "no"] + ["yes", "no"] * 2, category)
    assert found["f1_random"] == 1
    assert found["f1_popular"] == pytest.approx(2 / 3)  # precision 1/2, recall 1
    assert found["f1"] == pytest.approx(5 / 6)
    assert (found["accuracy"], found["yes_ratio"]) == (0.75, 0.75)


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


def test_mme_adds_tasks_up():
    said, truth = ["yes", "no", "yes", "yes", "no", "no"], ["yes", "no"] * 3
    task = ["OCR"] * 4 + ["code_reasoning"] * 2
    # OCR: 3 of 4 right, one of two images whole: 75 + 50; code: 1 of 2, none whole: 50 + 0. Image 1 is another in code.
    found = metrics.mme_total(said, truth, [1, 1, 2, 2, 1, 1], task)
    assert found == {"score": 175.0, "perception": 125.0, "cognition": 50.0}
    with pytest.raises(ValueError, match="got 'sums'"):
        metrics.mme_total(["yes", "no"], truth[:2], [1, 1], ["sums"] * 2)


@pytest.mark.parametrize("score", [metrics.exact_match, metrics.pope, metrics.multiple_choice])
def test_lengths_must_agree(score):
    with pytest.raises(ValueError, match="differ in length"):
        score(["yes"], ["yes", "no"])
    with pytest.raises(ValueError, match="empty"):
        score([], [])


def test_scores_are_arrays():
    assert isinstance(metrics.exact_match(["a"], ["a"]), np.ndarray)
