"""The pictures: seeded, disjoint splits, items where their boxes say, the target as often as counted."""

import numpy as np
import pytest

from lib.study.scenes import layout as scenes
from lib.study.scenes import render
from lib.study.scenes.layout import BADGE, CARD, OBJECT, SPLITS, Layout
from lib.study.scenes.render import generate


def drawn(seed=0, n=24, split="train", **layout):
    return generate(np.random.default_rng(seed), n, Layout(**layout), split)


def test_same_seed_same_pictures():
    first, again, other = drawn(3), drawn(3), drawn(4)
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.box, again.box)
    assert not np.array_equal(first.images, other.images)


def test_shapes_and_kinds():
    made = drawn(n=5)
    assert made.images.shape == (5, 96, 96, 3)
    assert made.images.dtype == np.uint8
    assert made.layout.grid == (12, 12)
    counts = [(made.kind[0] == kind).sum() for kind in (OBJECT, CARD, BADGE)]
    assert counts == [made.layout.objects, made.layout.cards, made.layout.badges]


def test_boxes_lie_inside_and_apart():
    made = drawn(n=60)
    left, top, right, bottom = np.moveaxis(made.box, -1, 0)
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= 96).all()
    assert (bottom <= 96).all()
    assert (right - left >= 8).all()
    assert (bottom - top >= 8).all()
    for boxes in made.box:
        cells = {(int(y0) // scenes.CELL, int(x0) // scenes.CELL) for x0, y0, _, _ in boxes}
        assert len(cells) == len(boxes)
        for x0, y0, x1, y1 in boxes:  # an item never leaves its cell
            assert (x1 - 1) // scenes.CELL == x0 // scenes.CELL
            assert (y1 - 1) // scenes.CELL == y0 // scenes.CELL


def test_an_object_has_its_colour_in_its_box():
    made = drawn(n=40, cells=1, objects=1, cards=0, badges=0)
    palette = np.array(list(scenes.COLORS.values()), float)
    right = 0
    for row in range(40):
        x0, y0, x1, y1 = made.box[row, 0]
        pixels = made.images[row, y0:y1, x0:x1].reshape(-1, 3).astype(float)
        near = np.linalg.norm(pixels[:, None] - palette[None], axis=-1).min(0).argmin()
        right += near == made.color[row, 0]
    assert right >= 38


def test_target_occurs_exactly_count_times():
    made = drawn(n=200)
    objects = made.kind == OBJECT
    by_shape, value = made.target.T
    kind = np.where(by_shape[:, None] == 1, made.shape, made.color)
    assert np.array_equal(((kind == value[:, None]) & objects).sum(1), made.count)
    assert set(made.count) == {1, 2, 3}


def test_splits_share_neither_photographs_nor_digits():
    assert [SPLITS[name] for name in ("train", "validation", "test")] == [(0, 0.55), (0.55, 0.75), (0.75, 1)]
    cards = {split: render._digit_bank(split)[0] for split in SPLITS}
    seen = {split: {card.tobytes() for card in bank} for split, bank in cards.items()}
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["validation"]
    widths = [
        sum(strip.shape[1] for strip in render.cuttings(split, render.photographs())) for split in SPLITS
    ]
    assert widths[0] > widths[2] > 0


def test_every_strip_holds_a_whole_picture():
    for split in SPLITS:
        assert all(strip.shape[1] >= 96 for strip in render.cuttings(split, render.photographs()))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: Layout(cells=0), "cells must be at least 1, got 0"),
        (lambda: Layout(cells=1, objects=2), "items must fit"),
        (lambda: drawn(split="holdout"), "split must be one of .* got 'holdout'"),
        (lambda: drawn(n=0), "n must be at least 1, got 0"),
    ],
)
def test_bad_input_is_named(call, told):
    with pytest.raises(ValueError, match=told):
        call()
