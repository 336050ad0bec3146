"""The questions at 24 x 24: true of the picture, unambiguous by their margins, balanced, with the boxes that answer them."""

from collections import Counter

import numpy as np
import pytest

from lib.models import embedded
from lib.study.scenes.layout import CARD, COLORS, OBJECT, PLACES, SHAPES
from lib.study.scenes.next.painting import PAPERS
from lib.study.scenes.next.words import (
    ANSWERS,
    DIRECTIONS,
    MIDDLE,
    NEARER,
    SUITES,
    asked_of,
    benchmark,
    caption,
    neighbours,
    words,
)
from lib.study.scenes.next.world import BACKGROUNDS, Layout, generate

NAMES, PICTURES = tuple(COLORS), 200


@pytest.fixture(scope="module")
def asked():
    return benchmark("test", PICTURES, 1)


def suite(asked, name):
    return [(row, found[SUITES.index(name)]) for row, found in enumerate(asked[1])]


def objects(scenes, row):
    slots = np.flatnonzero(scenes.kind[row] == OBJECT)
    middle = scenes.box[row, slots].reshape(-1, 2, 2).mean(1)
    named = [
        f"{NAMES[c]} {SHAPES[s]}"
        for c, s in zip(scenes.color[row, slots], scenes.shape[row, slots], strict=True)
    ]
    return slots, middle, named


def test_every_picture_has_a_question_of_every_suite(asked):
    assert len(asked[1]) == PICTURES
    assert all(tuple(question.suite for question in found) == SUITES for found in asked[1])
    again = benchmark("test", 20, 1)
    assert [q.text for q in again[1][0]] != [q.text for q in benchmark("test", 20, 2)[1][0]]
    assert np.array_equal(benchmark("test", 20, 1)[0].images, again[0].images)
    assert not np.array_equal(benchmark("validation", 20, 1)[0].images[0], again[0].images[0])


@pytest.mark.parametrize("name", SUITES)
def test_answers_are_balanced(asked, name):
    given = Counter(question.answer for _, question in suite(asked, name))
    assert set(given) <= set(ANSWERS[name])
    if name == "attribute":  # colours and shapes, in halves
        assert 0.35 < sum(given[color] for color in NAMES) / PICTURES < 0.65
    else:
        fair = PICTURES / len(ANSWERS[name])
        assert len(given) == len(ANSWERS[name])
        assert max(given.values()) <= fair + 4 * np.sqrt(fair)  # four standard deviations of a fair draw


def test_every_word_is_in_the_vocabulary_and_captions_fit_the_text_tower(asked):
    vocab = embedded.vocabulary(words())
    texts = [f"{q.text} {q.answer}" for found in asked[1] for q in found]
    rng = np.random.default_rng(3)
    scenes = generate(rng, 60)
    told = [caption(scenes, row, rng, row % 2 == 0, row % 3 == 0) for row in range(60) for _ in range(5)]
    assert {word for text in (*texts, *told) for word in text.split()} <= set(vocab)
    assert max(len(text.split()) for text in told) + 2 <= 77
    grey = " ".join(caption(scenes, row, rng, colored=False) for row in range(60))
    assert not set(grey.split()) & set(NAMES)
    assert any(direction in " ".join(told) for direction in DIRECTIONS)


def test_exists_attribute_and_count_tell_the_truth(asked):
    scenes = asked[0]
    for row, question in suite(asked, "exists"):
        _, _, named = objects(scenes, row)
        assert (" ".join(question.text.split()[3:5]) in named) == (question.answer == "yes")
    for row, question in suite(asked, "attribute"):
        _, _, named = objects(scenes, row)
        word = question.text.split()[4]
        (meant,) = [name for name in named if word in name.split()]
        assert question.answer in meant.split()
    for row, question in suite(asked, "count"):
        word = question.text.split()[2]
        _, _, named = objects(scenes, row)
        same = [name for name in named if name.split()[0] == word or name.split()[1] + "s" == word]
        assert int(question.answer) == len(same) == len(question.boxes)


def test_places_are_true_and_far_from_the_middle(asked):
    for _, question in suite(asked, "where"):
        (box,) = question.boxes
        off = (box[:2] + box[2:]) / 2 - 96
        assert np.abs(off).min() >= MIDDLE
        assert question.answer == PLACES[2 * int(off[1] > 0) + int(off[0] > 0)]


def test_the_card_that_is_asked_for_is_read(asked):
    papers = Counter()
    for row, question in suite(asked, "read"):
        paper = question.text.split()[5]
        (slot,) = np.flatnonzero(
            (asked[0].kind[row] == CARD) & (asked[0].color[row] == list(PAPERS).index(paper))
        )
        assert question.answer == str(asked[0].value[row, slot])
        assert np.array_equal(question.boxes, asked[0].box[row, [slot]])
        papers[paper] += 1
    assert min(papers.values()) > 60
    for row, question in suite(asked, "scene"):
        assert question.answer == list(BACKGROUNDS)[asked[0].background[row]]


def test_a_neighbour_is_the_nearest_there_by_a_margin(asked):
    scenes = asked[0]
    for row, question in suite(asked, "relate"):
        told = question.text.removeprefix("what color is ").removesuffix(" ?")
        (direction,) = [name for name in DIRECTIONS if told.startswith(name)]
        _, middle, named = objects(scenes, row)
        anchor = named.index(told.split(" the ")[1])
        assert named.count(named[anchor]) == 1
        offset = middle - middle[anchor]
        axis, sign = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}[direction]
        along, aside, far = sign * offset[:, axis], np.abs(offset[:, 1 - axis]), np.hypot(*offset.T)
        there = (along > 0) & (aside <= along)  # nearer to this direction than to any other
        first = np.where(there, far, np.inf).argmin()
        assert named[first].split()[0] == question.answer != named[anchor].split()[0]
        assert all(far[i] >= NEARER * far[first] for i in np.flatnonzero(there) if i != first)
        assert np.array_equal(question.boxes.reshape(-1, 2, 2).mean(1), middle[[first, anchor]])


def test_a_pair_side_by_side_are_neighbours_and_a_tie_is_none():
    scenes = generate(np.random.default_rng(0), 1, Layout(objects=3, cards=0, badges=0))
    box = np.array([[20, 80, 60, 120], [100, 80, 140, 120], [100, 150, 140, 190]])
    scenes.box[0] = box
    found = {(pair.anchor, pair.direction, pair.one) for pair in neighbours(scenes, 0)}
    assert found == {(0, "right of", 1), (1, "left of", 0), (1, "below", 2), (2, "above", 1)}
    scenes.box[0, 2] = [100, 1, 140, 41]  # as far above as the other lies below: both are rivals of no other
    scenes.box[0, 0] = [100, 150, 140, 190]
    tied = [pair for pair in neighbours(scenes, 0) if pair.anchor == 1]
    assert {pair.direction for pair in tied} == {"above", "below"}
    scenes.box[0, 0] = [60, 10, 100, 50]  # two above the lower one, nearly as far
    assert not [pair for pair in neighbours(scenes, 0) if pair.anchor == 1 and pair.direction == "above"]


def test_a_small_picture_is_asked_about_in_its_frame():
    scenes = generate(np.random.default_rng(0), 20, Layout(pixels=96, objects=2, cards=1, badges=0))
    rng, told = np.random.default_rng(1), Counter()
    for row in range(20):
        for question in asked_of(scenes, row, rng, {"where": 2, "relate": 2}, (12, 0)):
            told[question.suite] += 1
            if question.suite == "where":
                assert question.answer == "bottom-left"
    assert told["where"] > 10
    assert told["relate"] > 10
    with pytest.raises(ValueError, match="pictures=3 could not be filled"):
        benchmark("test", 3, 0, Layout(cards=0))
