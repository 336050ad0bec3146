"""The pictures of Scenes at 24 x 24: seeded, with known boxes, items of varied size at free places.

A picture of 192 pixels a side holds coloured shapes, two cards (one white, one grey) with a real handwritten digit each
(scikit-learn's test digits of Alpaydin and Kaynak) and salient badges that no question asks about, over a crop of a real
photograph (scikit-image, scikit-learn). No lattice: an item lies at any pixel where its square meets no other. Photographs
are cut into disjoint strips and digits into disjoint sets for train / validation / test. A batch is drawn by array
operations from one `numpy.random.Generator`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lib.study.scenes import render
from lib.study.scenes.layout import BADGE, CARD, COLORS, OBJECT, PATCH, SPLITS, Scenes
from lib.study.scenes.next import painting
from lib.study.scenes.next.painting import PAPERS

# Of the photographs in these wheels and in matplotlib's (SciPy's has none) those of which one strip tells another: trees on
# hand-made features of the training strips name at least 9 of 10 crops of the other strips. Not so: astronaut, camera, cell,
# china, coffee, Grace Hopper, retina, rocket.
BACKGROUNDS = {  # answer word: package that ships the photograph, file
    "brick": ("skimage", "brick.png"),
    "grass": ("skimage", "grass.png"),
    "gravel": ("skimage", "gravel.png"),
    "coins": ("skimage", "coins.png"),
    "page": ("skimage", "page.png"),
    "tissue": ("skimage", "ihc.png"),
    "galaxy": ("skimage", "hubble_deep_field.jpg"),
    "writing": ("skimage", "text.png"),
    "cat": ("skimage", "chelsea.png"),
    "garage": ("skimage", "motorcycle_left.png"),
    "moon": ("skimage", "moon.png"),
    "flower": ("sklearn", "flower.jpg"),
}
GAP = 2  # pixels between the squares of two items at least
TRIES, ROUNDS = 64, 8  # places tried for an item, and for a whole picture before its sizes are drawn anew


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a picture holds. Defaults: the benchmark's; smaller layouts feed the curricula.

    Sizes are the sides of the squares that hold an item, in pixels, both ends included; all are equally likely on a log
    scale. The range of the objects' is the knob that calibration may turn.
    """

    pixels: int = 192
    objects: int = 6
    cards: int = 2
    badges: int = 2
    shapes: int = 4  # of SHAPES; the tower's curriculum draws all six on small pictures
    sizes: tuple[int, int] = (28, 64)
    card_sizes: tuple[int, int] = (30, 46)
    badge_sizes: tuple[int, int] = (26, 38)

    def __post_init__(self) -> None:
        if self.pixels < PATCH or self.pixels % PATCH:
            raise ValueError(f"pixels must be a multiple of {PATCH}, got {self.pixels}")
        if self.items < 1 or self.cards > len(PAPERS):
            raise ValueError(
                f"a picture needs an item and at most {len(PAPERS)} cards, got {self.items} items, {self.cards} cards"
            )
        for name in ("sizes", "card_sizes", "badge_sizes"):
            low, high = getattr(self, name)
            if not PATCH <= low <= high <= self.pixels:
                raise ValueError(
                    f"{name} must lie between {PATCH} and the picture's {self.pixels} pixels, got {low}, {high}"
                )

    @property
    def items(self) -> int:
        """Objects, cards and badges of a picture."""
        return self.objects + self.cards + self.badges

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return (self.pixels // PATCH, self.pixels // PATCH)


def generate(rng: np.random.Generator, n: int, layout: Layout = Layout(), split: str = "train") -> Scenes:
    """Draw `n` pictures.

    Parameters
    ----------
    rng : source of all randomness.
    n : number of pictures, at least 1.
    layout : what each picture holds.
    split : "train", "validation" or "test"; photographs and digits of the splits are disjoint.

    Returns
    -------
    Scenes
        With `color` of a card its place in `PAPERS`.

    Raises
    ------
    ValueError
        On an unknown split, `n` below 1 or a layout whose items find no place.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {tuple(SPLITS)}, got {split!r}")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    parts = [layout.objects, layout.cards, layout.badges]
    kind = np.broadcast_to(np.repeat([OBJECT, CARD, BADGE], parts), (n, layout.items)).copy()
    color = rng.integers(0, len(COLORS), kind.shape)
    shape = rng.integers(0, layout.shapes, kind.shape)
    target, count = np.zeros((n, 2), int), np.zeros(n, int)
    if layout.objects:
        chosen = render.choose_items(rng, n, layout)
        color[:, : layout.objects], shape[:, : layout.objects], target, count = chosen
    color[kind == CARD] = rng.random((n, len(PAPERS))).argsort(1)[:, : layout.cards].ravel()
    left, top, side = places(rng, n, layout)
    background = rng.integers(0, len(BACKGROUNDS), n)
    strips = render.strips(split, layout.pixels, photographs())
    canvas = render.backdrop(rng, background, layout.pixels, strips)
    value = rng.integers(0, 2, kind.shape)
    box = np.zeros((*kind.shape, 4), int)
    for slot, what in enumerate(kind[0]):
        if what == CARD:
            alpha, paint, value[:, slot] = painting.cards(rng, color[:, slot], side[:, slot], split)
        elif what == OBJECT:
            alpha, paint = painting.objects(rng, shape[:, slot], color[:, slot], side[:, slot])
        else:
            alpha, paint = painting.badges(rng, value[:, slot], color[:, slot], side[:, slot])
        box[:, slot] = painting.paste(canvas, alpha, paint, left[:, slot], top[:, slot])
    canvas += np.float32(0.02) * rng.standard_normal(canvas.shape, dtype=np.float32)
    np.clip(canvas, 0, 1, out=canvas)
    images = (canvas * np.float32(255)).astype(np.uint8)
    return Scenes(layout, images, kind, shape, color, value, box, background, target, count)


def places(rng: np.random.Generator, n: int, layout: Layout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left and top edges and sides `[n,items]` of squares that lie apart, in pixels; the largest is placed first.

    Raises
    ------
    ValueError
        When the items of a layout find no place.
    """
    ranges = np.array(
        [layout.sizes] * layout.objects
        + [layout.card_sizes] * layout.cards
        + [layout.badge_sizes] * layout.badges
    )
    left, top, side = (np.zeros((n, layout.items), int) for _ in range(3))
    open_ = np.arange(n)
    for attempt in range(64 * ROUNDS):
        if attempt % ROUNDS == 0:
            low, high = np.log(ranges[:, 0]), np.log(ranges[:, 1] + 1)
            side[open_] = np.exp(rng.uniform(low, high, (len(open_), layout.items))).astype(int)
            side[open_] = side[open_].clip(ranges[:, 0], ranges[:, 1])
        left[open_], top[open_], found = _place_once(rng, side[open_], layout.pixels)
        open_ = open_[~found]
        if not len(open_):
            return left, top, side
    raise ValueError(f"{layout} is too full: {len(open_)} of {n} pictures found no place for every item")


def _place_once(rng: np.random.Generator, side: np.ndarray, pixels: int):
    """One try for pictures of sides `[m,items]`: left, top and whether all found a place `[m]`."""
    m, items = side.shape
    order = np.argsort(-side, 1, kind="stable")
    left, top = np.zeros((2, m, items), int)
    rows, found = np.arange(m), np.ones(m, bool)
    for rank in range(items):
        slot = order[:, rank]
        mine = side[rows, slot][:, None]
        at = rng.integers(0, pixels - mine[..., None] + 1, (m, TRIES, 2))
        free = np.ones((m, TRIES), bool)
        for earlier in range(rank):
            other = order[:, earlier]
            x, y, size = (part[rows, other][:, None] for part in (left, top, side))
            apart = (at[..., 0] >= x + size + GAP) | (at[..., 0] + mine + GAP <= x)
            free &= apart | (at[..., 1] >= y + size + GAP) | (at[..., 1] + mine + GAP <= y)
        first = free.argmax(1)
        found &= free[rows, first]
        left[rows, slot], top[rows, slot] = at[rows, first].T
    return left, top, found


@lru_cache(maxsize=1)
def photographs() -> tuple[Path, ...]:
    """Files of the photographs, in the order of `BACKGROUNDS`; they come inside the packages' wheels."""
    import skimage.data
    import sklearn.datasets

    folders = {
        "skimage": Path(skimage.data.__file__).parent,
        "sklearn": Path(sklearn.datasets.__file__).parent / "images",
    }
    return tuple(folders[package] / name for package, name in BACKGROUNDS.values())
