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

from lib.study import scenes
from lib.study.scenes import BADGE, CARD, COLORS, OBJECT, PATCH, SHAPES, SPLITS, Scenes

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
PAPERS = {"white": (0.86, 1.0), "grey": (0.46, 0.58)}  # brightness of a card
GAP = 2  # pixels between the squares of two items at least
TRIES, ROUNDS = 64, 8  # places tried for an item, and for a whole picture before its sizes are drawn anew
REACH = 1.15  # half the square of an object, in radii of its shape
TURN = 0.15  # radians that a shape or digit is turned at most


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
        chosen = scenes.choose_items(rng, n, layout)
        color[:, : layout.objects], shape[:, : layout.objects], target, count = chosen
    color[kind == CARD] = rng.random((n, len(PAPERS))).argsort(1)[:, : layout.cards].ravel()
    left, top, side = places(rng, n, layout)
    background = rng.integers(0, len(BACKGROUNDS), n)
    strips = scenes.strips(split, layout.pixels, photographs())
    canvas = scenes.backdrop(rng, background, layout.pixels, strips)
    value = rng.integers(0, 2, kind.shape)
    box = np.zeros((*kind.shape, 4), int)
    for slot, what in enumerate(kind[0]):
        if what == CARD:
            alpha, paint, value[:, slot] = _cards(rng, color[:, slot], side[:, slot], split)
        elif what == OBJECT:
            alpha, paint = _objects(rng, shape[:, slot], color[:, slot], side[:, slot])
        else:
            alpha, paint = _badges(rng, value[:, slot], color[:, slot], side[:, slot])
        box[:, slot] = _paste(canvas, alpha, paint, left[:, slot], top[:, slot])
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


@lru_cache(maxsize=1)
def _masters() -> np.ndarray:
    """Alpha masks of the shapes `[shapes,M,M]`, float32 in 0..1, from -1.25 to 1.25 radii."""
    from PIL import Image, ImageDraw

    side, over = 160, 4
    made = np.zeros((len(SHAPES), side, side), np.float32)
    for index, name in enumerate(SHAPES):
        big = Image.new("L", (side * over, side * over))
        scenes.draw_shape(ImageDraw.Draw(big), name, side * over / 2, side * over / 2.5, 0.0)
        made[index] = np.asarray(big.resize((side, side), Image.Resampling.BOX)) / 255.0
    return made


@lru_cache(maxsize=3)
def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The split's digits `[n,8,8]` float32 in 0..1 and their values `[n]`."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    low, high = (int(share * len(order)) for share in SPLITS[split])
    chosen = order[low:high]
    return (data.images[chosen] / 16.0).astype(np.float32), data.target[chosen]


def _window(side: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns of a square window `[n,W,W]` in half sides of each item (-1..1), and what lies inside its square."""
    grid = np.arange(side.max())
    at = (grid[None] + 0.5) / side[:, None].astype(np.float32) * 2 - 1
    inside = grid[None] < side[:, None]
    down = np.broadcast_to(at[:, :, None], (len(side), len(grid), len(grid)))
    across = np.broadcast_to(at[:, None, :], down.shape)
    return down, across, inside[:, :, None] & inside[:, None, :]


def _sample(bank: np.ndarray, pick: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Bilinear values `[n,W,W]` of `bank[pick]` at fractional rows and columns, 0 outside."""
    height, width = bank.shape[1:]
    padded = np.pad(bank, ((0, 0), (1, 1), (1, 1)))
    row, column = np.clip(row + 1, 0, height + 0.999), np.clip(column + 1, 0, width + 0.999)
    top, left = row.astype(int), column.astype(int)
    down, right = (row - top).astype(np.float32), (column - left).astype(np.float32)
    flat = padded.reshape(-1)
    at = (pick[:, None, None] * (height + 2) + top) * (width + 2) + left
    upper = flat[at] * (1 - right) + flat[at + 1] * right
    lower = flat[at + width + 2] * (1 - right) + flat[at + width + 3] * right
    return upper * (1 - down) + lower * down


def _turned(rng: np.random.Generator, side: np.ndarray):
    """Rows and columns of each item's window, turned by up to `TURN`, and what lies inside its square."""
    down, across, inside = _window(side)
    angle = rng.uniform(-TURN, TURN, (len(side), 1, 1)).astype(np.float32)
    cosine, sine = np.cos(angle), np.sin(angle)
    return cosine * down - sine * across, sine * down + cosine * across, inside


def _ink(rng: np.random.Generator, color: np.ndarray) -> np.ndarray:
    """Slightly varied paint `[n,1,1,3]` of the named colours."""
    palette = np.array(list(COLORS.values()), np.float32) / 255.0
    n = len(color)
    ink = np.clip(palette[color] * rng.uniform(0.8, 1.1, (n, 1)) + rng.normal(0, 0.03, (n, 3)), 0, 1)
    return ink.astype(np.float32)[:, None, None]


def _objects(rng, shape, color, side) -> tuple[np.ndarray, np.ndarray]:
    """Alpha `[n,W,W]` and paint `[n,1,1,3]` of coloured shapes."""
    masters = _masters()
    half = masters.shape[1] / 2
    down, across, inside = _turned(rng, side)
    scale = REACH / 1.25 * half
    alpha = _sample(masters, shape, down * scale + half - 0.5, across * scale + half - 0.5)
    return alpha * inside, _ink(rng, color)


def _cards(rng, paper, side, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Alpha `[n,W,W]`, paint `[n,W,W,3]` and digits `[n]` of cards; digits are turned, sheared and scaled a little."""
    images, values = digits(split)
    pick, n = rng.integers(0, len(values), len(side)), len(side)
    down, across, inside = _turned(rng, side)
    scale = rng.uniform(4.3, 5.1, (n, 1, 1)).astype(np.float32)
    shear = rng.uniform(-0.12, 0.12, (n, 1, 1)).astype(np.float32)
    shift = rng.uniform(-0.4, 0.4, (2, n, 1, 1)).astype(np.float32)
    digit = _sample(
        images, pick, down * scale + 3.5 + shift[0], (across + shear * down) * scale + 3.5 + shift[1]
    )
    low, high = np.array(list(PAPERS.values())).T
    bright = rng.uniform(low[paper], high[paper])[:, None, None].astype(np.float32)
    paint = bright * (1 - 0.9 * digit)
    return inside.astype(np.float32), np.repeat(paint[..., None], 3, -1), values[pick]


def _badges(rng, pattern, color, side) -> tuple[np.ndarray, np.ndarray]:
    """Alpha `[n,W,W]` and paint `[n,W,W,3]` of badges: stripes or checks of five pixels, bright on black."""
    _, _, inside = _window(side)
    rows, columns = np.mgrid[0 : side.max(), 0 : side.max()]
    stripes, checks = ((rows + columns) // 5) % 2, (rows // 5 + columns // 5) % 2
    bright = np.where(pattern[:, None, None] == 0, stripes, checks)[..., None]
    return inside.astype(np.float32), np.where(bright == 1, _ink(rng, color), np.float32(0.02))


def _paste(canvas, alpha, paint, left, top) -> np.ndarray:
    """Blend one item a picture into the canvas `[n,P,P,3]`; returns the boxes `[n,4]` of what can be seen."""
    boxes = np.zeros((len(left), 4), int)
    for row, (x, y) in enumerate(zip(left, top, strict=True)):
        seen = alpha[row] > 0.1
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        height, width = rows[-1] + 1, columns[-1] + 1
        part = alpha[row, :height, :width, None]
        colour = paint[row] if paint.shape[1] == 1 else paint[row, :height, :width]
        spot = canvas[row, y : y + height, x : x + width]
        spot += (colour - spot) * part
        boxes[row] = x + columns[0], y + rows[0], x + width, y + height
    return boxes
