"""Draw pictures of Scenes: shapes, digits and badges over crops of photographs, by array operations."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from lib.study.scenes.layout import (
    BACKGROUNDS,
    BADGE,
    CARD,
    CELL,
    COLORS,
    OBJECT,
    SHAPES,
    SHIFT,
    SPLITS,
    Layout,
    Scenes,
)


@lru_cache(maxsize=1)
def _shape_bank() -> np.ndarray:
    """Alpha masks `[shape, size 8, turn 3, 24, 24]`, float32 in 0..1, drawn at four times the resolution."""
    from PIL import Image, ImageDraw

    bank = np.zeros((len(SHAPES), 8, 3, CELL, CELL), np.float32)
    for shape, name in enumerate(SHAPES):
        for step in range(8):
            for turn in range(3):
                big = Image.new("L", (CELL * 4, CELL * 4))
                draw_shape(ImageDraw.Draw(big), name, CELL * 2, (17 + 5 * step / 7) * 2, (turn - 1) * 0.12)
                bank[shape, step, turn] = np.asarray(big.resize((CELL, CELL), Image.Resampling.BOX)) / 255.0
    return bank


def draw_shape(draw, name: str, centre: float, radius: float, turn: float) -> None:
    def corners(count: int, radii: tuple[float, ...], start: float) -> list[tuple[float, float]]:
        angle = start + turn + 2 * np.pi * np.arange(count) / count
        length = np.resize(radii, count) * radius
        return [
            (float(centre + r * np.cos(a)), float(centre + r * np.sin(a)))
            for r, a in zip(length, angle, strict=False)
        ]

    disc = (centre - radius * 0.95, centre - radius * 0.95, centre + radius * 0.95, centre + radius * 0.95)
    if name == "circle":
        draw.ellipse(disc, fill=255)
    elif name == "ring":
        draw.ellipse(disc, fill=255)
        inner = radius * 0.5
        draw.ellipse((centre - inner, centre - inner, centre + inner, centre + inner), fill=0)
    elif name == "square":
        draw.polygon(corners(4, (1.15,), np.pi / 4), fill=255)
    elif name == "triangle":
        draw.polygon(corners(3, (1.1,), -np.pi / 2), fill=255)
    elif name == "star":
        draw.polygon(corners(10, (1.1, 0.45), -np.pi / 2), fill=255)
    else:  # cross: twelve corners of two bars
        arm, thick = 1.0, 0.33
        points = [(thick, -arm), (thick, -thick), (arm, -thick), (arm, thick), (thick, thick), (thick, arm)]
        points += [(-x, -y) for x, y in points]
        turned = [
            (x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)) for x, y in points
        ]
        draw.polygon([(float(centre + radius * x), float(centre + radius * y)) for x, y in turned], fill=255)


@lru_cache(maxsize=3)
def _digit_bank(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Cards `[n, 24, 24, 2]` (card alpha, ink) and their values `[n]`; slight distortions of each digit."""
    from scipy.ndimage import affine_transform
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    low, high = (int(share * len(order)) for share in SPLITS[split])
    chosen = order[low:high]
    rng, times = np.random.default_rng(1), 16 if split == "train" else 4
    cards = np.zeros((times * len(chosen), CELL, CELL, 2), np.float32)
    for row, index in enumerate(np.repeat(chosen, times)):
        side = int(rng.integers(19, 23))
        scale = 8 / (side - 2) * rng.uniform(0.95, 1.1)
        angle, shear = rng.uniform(-0.12, 0.12), rng.uniform(-0.1, 0.1)
        matrix = scale * np.array([[np.cos(angle), -np.sin(angle) + shear], [np.sin(angle), np.cos(angle)]])
        centre = (side - 1) / 2
        offset = np.array([3.5, 3.5]) - matrix @ np.array([centre, centre])
        digit = affine_transform(data.images[index] / 16.0, matrix, offset, (side, side), order=1)
        start = (CELL - side) // 2
        cards[row, start : start + side, start : start + side, 0] = 1.0
        cards[row, start : start + side, start : start + side, 1] = digit
    return cards, np.repeat(data.target[chosen], times)


@cache
def photographs() -> tuple[Path, ...]:
    """Files of the photographs, in the order of `BACKGROUNDS`."""
    import skimage.data

    return tuple(Path(skimage.data.__file__).parent / name for name in BACKGROUNDS.values())


@lru_cache(maxsize=6)
def cuttings(split: str, files: tuple[Path, ...]) -> tuple[np.ndarray, ...]:
    """The split's vertical strip of each photograph, height 480, `[480, w, 3]` float32 in 0..1."""
    from PIL import Image

    strips = []
    for name in files:
        with Image.open(name) as file:
            photo = file.convert("RGB")
        photo = photo.resize((round(photo.width * 480 / photo.height), 480), Image.Resampling.LANCZOS)
        low, high = (round(share * photo.width) for share in SPLITS[split])
        strips.append(np.asarray(photo, np.float32)[:, low:high] / 255.0)
    return tuple(strips)


@cache
def strips(split: str, pixels: int, files: tuple[Path, ...]) -> tuple[np.ndarray, ...]:
    """The split's strips of some photographs, those narrower than a picture of `pixels` mirrored at their right edge until crops can vary.

    Mirrored and not enlarged, so that texture has the same grain in pictures of all sizes; splits stay disjoint.
    """
    cut = []
    for strip in cuttings(split, files):
        width = strip.shape[1]
        more = 0 if width >= pixels else -(-pixels // width) * width
        cut.append(np.pad(strip, ((0, 0), (0, more), (0, 0)), mode="symmetric") if more else strip)
    return tuple(cut)


def backdrop(
    rng: np.random.Generator, index: np.ndarray, pixels: int, strips: tuple[np.ndarray, ...]
) -> np.ndarray:
    """Crops `[B,P,P,3]` in 0..1 of the strips numbered by `index [B]`, dimmed and tinted so that colour tells nothing about the place."""
    out = np.empty((len(index), pixels, pixels, 3), np.float32)
    for row, place in enumerate(index):
        strip = strips[place]
        top = rng.integers(0, strip.shape[0] - pixels + 1)
        left = rng.integers(0, strip.shape[1] - pixels + 1)
        crop = strip[top : top + pixels, left : left + pixels]
        out[row] = crop[:, ::-1] if rng.random() < 0.5 else crop
    grey = out[..., 0] + out[..., 1] + out[..., 2]  # a third of it is the mean; faster than a sum over three
    out *= 0.55 * 0.4
    out += (0.55 * 0.6 / 3 * grey)[..., None] + np.float32(0.12)
    out *= rng.uniform(0.8, 1.0, (len(index), 1, 1, 3)).astype(np.float32)
    return out


def choose_items(rng: np.random.Generator, n: int, layout: Layout):
    """Colours and shapes `[n, objects]` in which one colour or one shape occurs exactly `count` times."""
    objects = layout.objects
    by_shape = rng.integers(0, 2, n)
    kinds = np.array([len(COLORS), layout.shapes])
    size = kinds[by_shape]
    value = rng.integers(0, size)
    count = rng.integers(1, min(3, max(1, objects)) + 1, n)
    free = rng.integers(0, kinds[None, :, None], (n, 2, objects))
    rows = np.arange(n)
    wanted = free[rows, by_shape]
    other = (value[:, None] + rng.integers(1, size[:, None], (n, objects))) % size[:, None]
    free[rows, by_shape] = np.where(wanted == value[:, None], other, wanted)
    special = np.arange(objects)[None] < count[:, None]
    free[rows, by_shape] = np.where(special, value[:, None], free[rows, by_shape])
    return free[:, 0], free[:, 1], np.stack([by_shape, value], 1), count


def generate(rng: np.random.Generator, n: int, layout: Layout = Layout(), split: str = "train") -> Scenes:
    """Draw `n` scenes.

    Parameters
    ----------
    rng : source of all randomness.
    n : number of pictures, at least 1.
    layout : what each picture holds.
    split : "train", "validation" or "test"; photographs and digits of the splits are disjoint.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {tuple(SPLITS)}, got {split!r}")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    items = layout.items
    kind = np.repeat([OBJECT, CARD, BADGE], [layout.objects, layout.cards, layout.badges])
    kind = np.broadcast_to(kind, (n, items)).copy()
    color = rng.integers(0, len(COLORS), (n, items))
    shape = rng.integers(0, layout.shapes, (n, items))
    if layout.objects:
        color[:, : layout.objects], shape[:, : layout.objects], target, count = choose_items(rng, n, layout)
    else:
        target, count = np.zeros((n, 2), int), np.zeros(n, int)
    cell = rng.random((n, layout.cells**2)).argsort(1)[:, :items]
    place = rng.integers(0, len(BACKGROUNDS), n)
    canvas = backdrop(rng, place, layout.pixels, strips(split, layout.pixels, photographs()))
    value = rng.integers(0, 2, (n, items))
    box = np.zeros((n, items, 4), int)
    for slot in range(items):
        alpha, paint, value[:, slot] = _paint(
            rng, kind[0, slot], shape[:, slot], color[:, slot], value[:, slot], split
        )
        box[:, slot] = _paste(rng, canvas, alpha, paint, cell[:, slot], layout)
    canvas += np.float32(0.02) * rng.standard_normal(canvas.shape, dtype=np.float32)
    np.clip(canvas, 0, 1, out=canvas)
    images = (canvas * np.float32(255)).astype(np.uint8)
    return Scenes(layout, images, kind, shape, color, value, box, place, target, count)


def _paint(rng, kind: int, shape, color, value, split: str):
    """Alpha `[n,24,24]`, paint `[n,24,24,3]` and value `[n]` of one slot."""
    n = len(shape)
    palette = np.array(list(COLORS.values()), np.float32) / 255.0
    ink = np.clip(palette[color] * rng.uniform(0.8, 1.1, (n, 1)) + rng.normal(0, 0.03, (n, 3)), 0, 1)
    ink = ink.astype(np.float32)[:, None, None]
    if kind == OBJECT:
        alpha = _shape_bank()[shape, rng.integers(0, 8, n), rng.integers(0, 3, n)]
        return alpha, np.broadcast_to(ink, (n, CELL, CELL, 3)), value
    if kind == CARD:
        cards, values = _digit_bank(split)
        pick = rng.integers(0, len(values), n)
        paper = rng.uniform(0.85, 1.0, (n, 1, 1, 1)).astype(np.float32)
        paint = paper * (1 - 0.9 * cards[pick, ..., 1:]) * np.ones(3, np.float32)
        return cards[pick, ..., 0], paint, values[pick]
    rows, columns = np.mgrid[0:CELL, 0:CELL]
    stripes = ((rows + columns) // 4) % 2
    checks = (rows // 4 + columns // 4) % 2
    bright = np.where(value[:, None, None] == 0, stripes, checks)[..., None]
    alpha = np.zeros((n, CELL, CELL), np.float32)
    alpha[:, 2:-2, 2:-2] = 1.0
    return alpha, np.where(bright == 1, ink, np.float32(0.02)), value


def _paste(rng, canvas, alpha, paint, cell, layout: Layout) -> np.ndarray:
    """Blend one 24 x 24 item per picture into `canvas`, shifted within its cell; returns boxes `[n,4]`."""
    n = len(cell)
    inside = alpha > 0.1
    rows, columns = inside.any(2), inside.any(1)
    top, bottom = rows.argmax(1), CELL - rows[:, ::-1].argmax(1)
    left, right = columns.argmax(1), CELL - columns[:, ::-1].argmax(1)
    down = rng.integers(np.maximum(-top, -SHIFT), np.minimum(CELL - bottom, SHIFT) + 1)
    across = rng.integers(np.maximum(-left, -SHIFT), np.minimum(CELL - right, SHIFT) + 1)
    y0, x0 = (cell // layout.cells) * CELL, (cell % layout.cells) * CELL
    offset = np.arange(CELL)
    y = (offset[None] - down[:, None]) % CELL  # rolled item rows: what leaves one side is empty
    x = (offset[None] - across[:, None]) % CELL
    sample = np.arange(n)[:, None, None]
    moved = alpha[sample, y[:, :, None], x[:, None, :]][..., None]
    colour = paint[sample, y[:, :, None], x[:, None, :]]
    where = (sample, (y0[:, None] + offset)[:, :, None], (x0[:, None] + offset)[:, None, :])
    canvas[where] = canvas[where] * (1 - moved) + colour * moved
    return np.stack([x0 + left + across, y0 + top + down, x0 + right + across, y0 + bottom + down], 1)
