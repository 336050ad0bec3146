"""What an item of a picture at 24 x 24 looks like: alpha and paint of shapes, cards and badges of any size, by bilinear sampling."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from lib.study.scenes import render
from lib.study.scenes.layout import COLORS, SHAPES, SPLITS

PAPERS = {"white": (0.86, 1.0), "grey": (0.46, 0.58)}  # brightness of a card
REACH = 1.15  # half the square of an object, in radii of its shape
TURN = 0.15  # radians that a shape or digit is turned at most


@lru_cache(maxsize=1)
def _masters() -> np.ndarray:
    """Alpha masks of the shapes `[shapes,M,M]`, float32 in 0..1, from -1.25 to 1.25 radii."""
    from PIL import Image, ImageDraw

    side, over = 160, 4
    made = np.zeros((len(SHAPES), side, side), np.float32)
    for index, name in enumerate(SHAPES):
        big = Image.new("L", (side * over, side * over))
        render.draw_shape(ImageDraw.Draw(big), name, side * over / 2, side * over / 2.5, 0.0)
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


def objects(rng, shape, color, side) -> tuple[np.ndarray, np.ndarray]:
    """Alpha `[n,W,W]` and paint `[n,1,1,3]` of coloured shapes."""
    masters = _masters()
    half = masters.shape[1] / 2
    down, across, inside = _turned(rng, side)
    scale = REACH / 1.25 * half
    alpha = _sample(masters, shape, down * scale + half - 0.5, across * scale + half - 0.5)
    return alpha * inside, _ink(rng, color)


def cards(rng, paper, side, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def badges(rng, pattern, color, side) -> tuple[np.ndarray, np.ndarray]:
    """Alpha `[n,W,W]` and paint `[n,W,W,3]` of badges: stripes or checks of five pixels, bright on black."""
    _, _, inside = _window(side)
    rows, columns = np.mgrid[0 : side.max(), 0 : side.max()]
    stripes, checks = ((rows + columns) // 5) % 2, (rows // 5 + columns // 5) % 2
    bright = np.where(pattern[:, None, None] == 0, stripes, checks)[..., None]
    return inside.astype(np.float32), np.where(bright == 1, _ink(rng, color), np.float32(0.02))


def paste(canvas, alpha, paint, left, top) -> np.ndarray:
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
