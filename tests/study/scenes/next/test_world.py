"""The pictures at 24 x 24: seeded, disjoint splits, items apart at free places, boxes around what is seen."""

import numpy as np
import pytest

from lib.study.scenes.layout import BADGE, CARD, COLORS, OBJECT, SPLITS
from lib.study.scenes.next.painting import PAPERS, digits
from lib.study.scenes.next.world import BACKGROUNDS, Layout, generate, photographs, places
from lib.study.scenes.questions import evidence_mask
from lib.study.scenes.render import cuttings


@pytest.fixture(scope="module")
def drawn():
    return generate(np.random.default_rng(1), 60, split="test")


def test_a_seed_gives_its_pictures(drawn):
    again = generate(np.random.default_rng(1), 60, split="test")
    assert np.array_equal(again.images, drawn.images)
    assert np.array_equal(again.box, drawn.box)
    assert not np.array_equal(generate(np.random.default_rng(2), 2).images[0], drawn.images[0])
    assert drawn.images.shape == (60, 192, 192, 3)
    assert drawn.layout.grid == (24, 24)
    assert [(drawn.kind[0] == kind).sum() for kind in (OBJECT, CARD, BADGE)] == [6, 2, 2]


def test_items_lie_apart_inside_the_picture_and_on_no_lattice(drawn):
    box = drawn.box
    assert box.min() >= 0
    assert box.max() <= 192
    apart = (box[:, :, None, 2:] <= box[:, None, :, :2]).any(-1)
    apart |= apart.transpose(0, 2, 1) | np.eye(box.shape[1], dtype=bool)
    assert apart.all()
    objects = box[drawn.kind == OBJECT]
    assert len(set(objects[:, 0] % 8)) == 8  # of every offset to the patches


def test_objects_vary_from_the_smallest_to_the_largest_size():
    _, _, side = places(np.random.default_rng(0), 200, Layout())
    side = side[:, :6]
    assert (side.min(), side.max()) == (28, 64)
    below = (side < np.sqrt(28 * 64)).mean()  # half, on a log scale
    assert 0.4 < below < 0.6
    small = generate(np.random.default_rng(0), 20, Layout(sizes=(28, 40)))
    width = (small.box[..., 2] - small.box[..., 0])[small.kind == OBJECT]
    assert width.max() <= 40
    assert width.min() >= 20  # a triangle is narrower than its square


def test_an_object_covers_the_tokens_it_is_said_to(drawn):
    covered = [
        evidence_mask(box[None], drawn.layout.grid).sum()
        for boxes, kind in zip(drawn.box, drawn.kind, strict=True)
        for box in boxes[kind == OBJECT]
    ]
    assert min(covered) >= 9
    assert max(covered) <= 81
    assert 20 <= np.mean(covered) <= 40


def test_an_object_has_its_colour_and_a_card_its_paper(drawn):
    palette = np.array(list(COLORS.values()), float)
    right = []
    for row in range(60):
        for slot, kind in enumerate(drawn.kind[row]):
            x0, y0, x1, y1 = drawn.box[row, slot]
            pixels = drawn.images[row, y0:y1, x0:x1].reshape(-1, 3).astype(float)
            if kind == OBJECT:
                near = np.linalg.norm(pixels[:, None] - palette[None], axis=-1).min(0).argmin()
                right.append(near == drawn.color[row, slot])
            if kind == CARD:
                assert (np.median(pixels) > 180) == (drawn.color[row, slot] == list(PAPERS).index("white"))
    assert np.mean(right) > 0.97


def test_both_papers_are_there_and_the_target_is_counted(drawn):
    papers = drawn.color[drawn.kind == CARD].reshape(60, 2)
    assert (np.sort(papers, 1) == [0, 1]).all()
    by_shape, value = drawn.target.T
    of = np.where(by_shape[:, None] == 1, drawn.shape, drawn.color)
    same = (of == value[:, None]) & (drawn.kind == OBJECT)
    assert np.array_equal(same.sum(1), drawn.count)
    assert set(drawn.count) == {1, 2, 3}


def test_splits_share_neither_photographs_nor_digits():
    assert all(file.is_file() for file in photographs())
    assert len(photographs()) == len(BACKGROUNDS) == 12
    seen = {split: {digit.tobytes() for digit in digits(split)[0]} for split in SPLITS}
    assert not seen["test"] & (seen["train"] | seen["validation"])
    assert not seen["train"] & seen["validation"]
    whole = [sum(strip.shape[1] for strip in cuttings(split, photographs())) for split in SPLITS]
    assert whole[0] > whole[2] > whole[1] > 0


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: Layout(pixels=100), "pixels must be a multiple of 8, got 100"),
        (lambda: Layout(cards=3), "at most 2 cards"),
        (lambda: Layout(pixels=48), "sizes must lie between 8 and the picture's 48 pixels"),
        (lambda: generate(np.random.default_rng(0), 0), "n must be at least 1"),
        (lambda: generate(np.random.default_rng(0), 1, split="all"), "split must be one of"),
        (
            lambda: generate(np.random.default_rng(0), 1, Layout(pixels=64, objects=6)),
            "too full: 1 of 1 pictures",
        ),
    ],
)
def test_bad_input_is_named(call, told):
    with pytest.raises(ValueError, match=told):
        call()
