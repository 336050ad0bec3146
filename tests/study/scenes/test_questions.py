"""The questions: true of the picture, answerable, balanced, with the boxes that answer them."""

from collections import Counter

import numpy as np
import pytest

from lib.models import embedded
from lib.study.scenes import questions
from lib.study.scenes.layout import ANSWERS, COLORS, OBJECT, PLACES, SHAPES, SUITES, Layout
from lib.study.scenes.questions import benchmark, caption, evidence_mask, take, words
from lib.study.scenes.render import generate

NAMES = tuple(COLORS)


@pytest.fixture(scope="module")
def asked():
    return benchmark("test", 150, 1)


def test_benchmark_asks_every_suite_of_every_picture(asked):
    scenes, found = asked
    assert len(scenes.images) == len(found) == 150
    assert all(tuple(question.suite for question in row) == SUITES for row in found)
    again = benchmark("test", 150, 1)
    assert [[q.text for q in row] for row in again[1]] == [[q.text for q in row] for row in found]
    other = benchmark("validation", 10, 1)[0]
    assert not np.array_equal(other.images[0], scenes.images[0])


def test_answers_are_known_and_no_suite_is_answered_by_one_word(asked):
    for place, suite in enumerate(SUITES):
        given = Counter(row[place].answer for row in asked[1])
        assert set(given) <= set(ANSWERS[suite])
        assert max(given.values()) / 150 < 0.65, suite


def test_every_word_is_in_the_vocabulary(asked):
    vocab = embedded.vocabulary(words())
    text = " ".join(f"{q.text} {q.answer}" for row in asked[1] for q in row)
    assert set(text.split()) <= set(vocab)
    scenes = generate(np.random.default_rng(9), 100)
    told = " ".join(caption(scenes, row, np.random.default_rng(row), row % 2 == 0) for row in range(100))
    assert set(told.split()) <= set(vocab)


def test_exists_tells_the_truth(asked):
    scenes, found = asked
    for row, some in enumerate(found):
        question = some[SUITES.index("exists")]
        color, shape = question.text.split()[3:5]
        objects = scenes.kind[row] == OBJECT
        here = (
            (scenes.color[row] == NAMES.index(color)) & (scenes.shape[row] == SHAPES.index(shape)) & objects
        )
        assert question.answer == ("yes" if here.any() else "no")
        if here.any():
            assert np.array_equal(question.boxes, scenes.box[row, here])


def test_attribute_names_the_only_object_meant(asked):
    scenes, found = asked
    for row, some in enumerate(found):
        question = some[SUITES.index("attribute")]
        objects = scenes.kind[row] == OBJECT
        if question.text.startswith("what color"):
            meant = objects & (scenes.shape[row] == SHAPES.index(question.text.split()[4]))
            answer = [NAMES[color] for color in scenes.color[row, meant]]
        else:
            meant = objects & (scenes.color[row] == NAMES.index(question.text.split()[4]))
            answer = [SHAPES[shape] for shape in scenes.shape[row, meant]]
        assert answer == [question.answer]
        assert np.array_equal(question.boxes, scenes.box[row, meant])


def test_count_where_read_and_scene_tell_the_truth(asked):
    scenes, found = asked
    for row, some in enumerate(found):
        by_suite = {question.suite: question for question in some}
        assert by_suite["count"].answer == str(scenes.count[row]) == str(len(by_suite["count"].boxes))
        (box,) = by_suite["where"].boxes
        down, across = (box[1] + box[3]) / 2 > 48, (box[0] + box[2]) / 2 > 48
        assert by_suite["where"].answer == PLACES[2 * int(down) + int(across)]
        assert by_suite["read"].answer in "0123456789"
        assert by_suite["scene"].boxes.tolist() == [[0, 0, 96, 96]]


def test_captions_do_not_say_where_things_are():
    scenes = generate(np.random.default_rng(2), 200)
    told = " ".join(caption(scenes, row, np.random.default_rng(row)) for row in range(200)).split()
    assert not set(told) & set(PLACES)


def test_captions_with_a_corner_name_true_places():
    layout, told = Layout(cells=1, objects=1, cards=0, badges=0), Counter()
    scenes = generate(np.random.default_rng(3), 300, layout)
    for row in range(300):
        rng = np.random.default_rng(row)
        corner = tuple(rng.integers(0, 10, 2))
        text = caption(scenes, row, rng, everything=True, corner=corner).split()
        down, across = (
            corner[0] + 1.5 > 6,
            corner[1] + 1.5 > 6,
        )  # patches; the cell's middle against the frame's
        named = [word for word in text if word in PLACES]
        assert named in ([], [PLACES[2 * int(down) + int(across)]])
        told[len(named)] += 1
    assert min(told[0], told[1]) > 100


def test_more_counting_is_true_and_varied():
    scenes, found = generate(np.random.default_rng(4), 60), []
    for row in range(60):
        asked = questions.questions(scenes, row, np.random.default_rng(row), per_suite=2, counts=6)
        asked = [question for question in asked if question.suite == "count"]
        assert len(asked) == 6
        for question in asked:
            kind = question.text.split()[2]
            objects = scenes.kind[row] == OBJECT
            same = (
                scenes.color[row] == NAMES.index(kind)
                if kind in NAMES
                else scenes.shape[row] == [questions.plural(shape) for shape in SHAPES].index(kind)
            )
            assert int(question.answer) == (same & objects).sum() == len(question.boxes)
        found += [question.answer for question in asked]
    assert set(found) == set(ANSWERS["count"])
    assert max(Counter(found).values()) / len(found) < 0.5


def test_a_small_picture_has_its_place_in_the_frame():
    scenes = generate(np.random.default_rng(5), 40, Layout(cells=2, objects=3, badges=0))
    for row in range(40):
        asked = questions.questions(scenes, row, np.random.default_rng(row), corner=(6, 6))
        assert {question.answer for question in asked if question.suite == "where"} <= {"bottom-right"}


def test_colourless_captions_have_no_colour_word():
    scenes = generate(np.random.default_rng(2), 200)
    told = " ".join(caption(scenes, row, np.random.default_rng(row), colored=False) for row in range(200))
    assert not set(told.split()) & set(NAMES)


def test_evidence_mask_needs_a_quarter_of_a_patch():
    boxes = np.array([[0, 0, 8, 8], [16, 0, 24, 2], [24, 0, 32, 1]])
    mask = evidence_mask(boxes, (12, 12)).reshape(12, 12)
    assert mask[0, :4].tolist() == [True, False, True, False]
    assert mask.sum() == 2
    assert evidence_mask(np.array([[0, 0, 96, 96]]), (12, 12)).all()
    assert not evidence_mask(np.zeros((0, 4)), (12, 12)).any()


def test_most_questions_cannot_be_answered_by_luck(asked):
    scenes, found = asked
    sizes = [
        evidence_mask(q.boxes, scenes.layout.grid).sum() for row in found for q in row if q.suite == "read"
    ]
    assert np.mean(sizes) < 0.11 * 144


def test_take_and_plural():
    scenes = generate(np.random.default_rng(0), 4, Layout(cells=2, objects=2, badges=0))
    some = take(scenes, np.array([2, 0]))
    assert np.array_equal(some.images, scenes.images[[2, 0]])
    assert some.layout == scenes.layout
    assert questions.plural("cross") == "crosses"
