"""Scenes: the embedded benchmark. Seeded pictures, captions and questions with known evidence boxes.

A picture is a square of `cells` x `cells` cells of 24 pixels. Cells hold coloured shapes, one card with a real handwritten
digit (scikit-learn's test digits of Alpaydin and Kaynak) and salient badges that no question asks about, over a crop of a
real photograph (scikit-image). Photographs are cut into disjoint strips and digits into disjoint sets for
train / validation / test. Everything is drawn with one `numpy.random.Generator`; a batch is rendered by array operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHAPES = ("circle", "triangle", "ring", "square", "star", "cross")  # the benchmark's three come first
COLORS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (240, 215, 40),
    "purple": (170, 60, 200),
    "cyan": (60, 210, 220),
}
BADGES = ("striped", "checkered")
BACKGROUNDS = {  # answer word: file shipped with scikit-image
    "brick": "brick.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "coins": "coins.png",
    "page": "page.png",
    "tissue": "ihc.png",
    "galaxy": "hubble_deep_field.jpg",
}
PLACES = ("top-left", "top-right", "bottom-left", "bottom-right")
DIGITS = tuple("0123456789")
SUITES = ("exists", "attribute", "count", "where", "read", "scene")
SPLITS = {
    "train": (0.0, 0.55),
    "validation": (0.55, 0.75),
    "test": (0.75, 1.0),
}  # share of width and of digits
CELL = 24  # pixels; three patches of eight
PATCH = 8
SHIFT = 2  # pixels an item may lie off the middle of its cell
OBJECT, CARD, BADGE, EMPTY = 0, 1, 2, 3
ANSWERS = {
    "exists": ("yes", "no"),
    "attribute": tuple(COLORS) + SHAPES[:3],
    "count": ("1", "2", "3"),
    "where": PLACES,
    "read": DIGITS,
    "scene": tuple(BACKGROUNDS),
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a picture holds. Defaults: the benchmark's; smaller layouts feed the tower's curriculum."""

    cells: int = 4  # 4 x 4 cells = 96 pixels = 12 x 12 patches
    objects: int = 6
    cards: int = 1
    badges: int = 2
    shapes: int = 3  # of SHAPES; the tower's curriculum draws all six on small pictures

    def __post_init__(self) -> None:
        if self.cells < 1:
            raise ValueError(f"cells must be at least 1, got {self.cells}")
        if not 1 <= self.items <= self.cells**2:
            raise ValueError(f"items must fit into {self.cells**2} cells, got {self.items}")

    @property
    def items(self) -> int:
        return self.objects + self.cards + self.badges

    @property
    def pixels(self) -> int:
        return self.cells * CELL

    @property
    def grid(self) -> tuple[int, int]:
        return (self.pixels // PATCH, self.pixels // PATCH)


@dataclass(frozen=True)
class Scenes:
    """A batch of B pictures with S items each; integer arrays `[B,S]` unless noted."""

    layout: Layout
    images: np.ndarray  # [B,P,P,3] uint8
    kind: np.ndarray  # OBJECT, CARD, BADGE
    shape: np.ndarray  # index into SHAPES (objects)
    color: np.ndarray  # index into COLORS (objects), of the badge's bright colour otherwise
    value: np.ndarray  # digit of a card, index into BADGES of a badge
    box: np.ndarray  # [B,S,4] pixels: left, top, right, bottom
    background: np.ndarray  # [B] index into BACKGROUNDS
    target: np.ndarray  # [B,2] (0 colour or 1 shape, value): the kind of object placed `count` times
    count: np.ndarray  # [B]
