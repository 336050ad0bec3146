"""Draw what a method does to one picture: maps over its tokens, kept tokens, merged tokens; and write tables.

Every function draws on Axes that it is given and reads no result file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike
from PIL import Image

from lib.study.pages.looks import FONT, ORANGE, axes_of

SIGNED, PLAIN = "vlag", "viridis"  # both read without red-green vision
_DASH = (0, (3, 1))


def panels(count: int, columns: int, side: float = 2.3) -> tuple[Figure, list[Axes]]:
    """A figure of `count` square panels in rows of `columns`; places that stay empty are not drawn."""
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(side * columns, (side + 0.35) * rows), layout="constrained", squeeze=False
    )
    for ax in axes.flat[count:]:
        ax.axis("off")
    return figure, list(axes.flat[:count])


def photograph(name: str, side: int = 288) -> np.ndarray:
    """The middle square of a photograph shipped with scikit-image, [side, side, 3] uint8; no download.

    The model's processor cuts out the same square.
    """
    import skimage.data

    path = Path(skimage.data.__file__).parent / f"{name}.png"
    if not path.is_file():
        known = sorted(found.stem for found in path.parent.glob("*.png"))
        raise ValueError(
            f"name must be a picture shipped with scikit-image, got {name!r}; known: {', '.join(known)}"
        )
    with Image.open(path) as file:
        photo = file.convert("RGB")
    edge = min(photo.size)
    left, top = (photo.width - edge) // 2, (photo.height - edge) // 2
    square = photo.crop((left, top, left + edge, top + edge))
    return np.asarray(square.resize((side, side), Image.Resampling.LANCZOS))


def picture(ax: Axes, image: np.ndarray, title: str = "", boxes: Sequence | None = None) -> Axes:
    """The bare picture with evidence boxes."""
    height, width = image.shape[:2]
    ax.imshow(image, extent=(0, width, height, 0), interpolation="nearest")
    _finish(ax, width, height, title, boxes)
    return ax


def heat(
    ax: Axes,
    values: ArrayLike,
    grid: tuple[int, int],
    title: str = "",
    *,
    size: tuple[int, int] | None = None,
    boxes: Sequence | None = None,
    framed: Sequence[int] = (),
    signed: bool = False,
    limits: tuple[float, float] | None = None,
    bar: bool = False,
) -> Axes:
    """One map over the tokens.

    Parameters
    ----------
    values : [N].
    grid : (rows, columns).
    size : (height, width) of the picture in pixels, for boxes; None counts in tokens.
    boxes : evidence boxes as left, top, right, bottom in pixels.
    framed : tokens to frame in white on black.
    signed : colours on both sides of zero.
    limits : lowest and highest value of the colours; None takes the map's own.
    bar : draw a colour bar.
    """
    values = np.asarray(values, dtype=float)
    if values.shape != (grid[0] * grid[1],):
        raise ValueError(f"values must have {grid[0] * grid[1]} entries for grid {grid}, got {values.shape}")
    height, width = size or grid
    if limits is None:
        top = float(np.abs(values).max()) or 1.0
        limits = (-top, top) if signed else (float(values.min()), float(values.max()))
    shown = ax.imshow(
        values.reshape(grid),
        extent=(0, width, height, 0),
        cmap=SIGNED if signed else PLAIN,
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest",
    )
    _frame(ax, framed, grid, width, height)
    _finish(ax, width, height, title, boxes)
    if bar:
        ax.figure.colorbar(shown, ax=ax, shrink=0.8)
    return ax


def kept_overlay(
    image: np.ndarray,
    kept: ArrayLike,
    grid: tuple[int, int],
    scores: Sequence[float] | None = None,
    boxes: Sequence[tuple[float, float, float, float]] | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw which tokens of an image were kept: dropped ones are pale.

    Parameters
    ----------
    image
        [height, width, 3], uint8 or 0..1.
    kept
        Indices of kept tokens, row by row.
    grid
        Rows and columns of tokens.
    scores
        [rows * columns] values of one cue, drawn as a colour layer.
    boxes
        Evidence boxes as left, top, right, bottom in pixels.
    """
    rows, columns = grid
    kept = np.asarray(kept, dtype=int)
    if kept.size and not 0 <= kept.min() <= kept.max() < rows * columns:
        raise ValueError(f"kept must lie in 0..{rows * columns - 1}, got {kept.min()}..{kept.max()}")
    ax = axes_of(ax, (3.2, 3.4))
    height, width = image.shape[:2]
    tall, wide = height / rows, width / columns
    ax.imshow(image, interpolation="nearest", extent=(0, width, height, 0))
    extent = (0, width, height, 0)
    if scores is not None:
        heat = np.asarray(scores, dtype=float)
        if heat.size != rows * columns:
            raise ValueError(f"scores must have {rows * columns} values for grid {grid}, got {heat.size}")
        ax.imshow(heat.reshape(grid), extent=extent, cmap="viridis", alpha=0.6, interpolation="nearest")
    else:
        veil = np.ones((rows * columns, 4))
        veil[:, 3] = 0.72
        veil[kept, 3] = 0.0
        ax.imshow(veil.reshape(rows, columns, 4), extent=extent, interpolation="nearest")
    _frames(ax, kept, columns, (wide, tall), boxes)
    ax.set_title(title)
    ax.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    return ax


def _frames(
    ax: Axes, kept: np.ndarray, columns: int, cell: tuple[float, float], boxes: Sequence | None
) -> None:
    """Frame the kept tokens black on white, and the evidence boxes with a dashed line."""
    wide, tall = cell
    for index in kept:
        corner = (index % columns * wide, index // columns * tall)
        ax.add_patch(Rectangle(corner, wide, tall, fill=False, edgecolor="white", linewidth=1.6))
        ax.add_patch(Rectangle(corner, wide, tall, fill=False, edgecolor="black", linewidth=0.7))
    for left, top, right, bottom in () if boxes is None else boxes:
        corner, size = (left, top), (right - left, bottom - top)
        ax.add_patch(
            Rectangle(corner, *size, fill=False, edgecolor=ORANGE, linewidth=2.2, linestyle=(0, (3, 1)))
        )


def kept_panels(
    image: np.ndarray,
    kept: Mapping[str, Sequence[int]],
    grid: tuple[int, int],
    boxes: Sequence | None = None,
    columns: int = 4,
    first: str = "the picture",
) -> Figure:
    """The picture, then one panel a title with its kept tokens bright and the dropped ones pale."""
    figure, axes = panels(len(kept) + 1, columns)
    picture(axes[0], image, first, boxes)
    for ax, (title, tokens) in zip(axes[1:], kept.items(), strict=True):
        kept_overlay(image, tokens, grid, boxes=boxes, title=title, ax=ax)
    return figure


def two_branches(
    ax: Axes, image: np.ndarray, first: Sequence[int], second: Sequence[int], grid: tuple[int, int], **rest
) -> Axes:
    """Kept tokens told apart by the branch that took them: squares for the first, discs for the second."""
    kept_overlay(image, np.union1d(first, second).astype(int), grid, ax=ax, **rest)
    for tokens, marker, colour, label in ((first, "s", "C0", "text"), (second, "o", "C1", "saliency")):
        x, y = _middles(tokens, grid, image.shape[1], image.shape[0])
        ax.scatter(x, y, marker=marker, s=34, color=colour, edgecolors="white", linewidths=1.0, label=label)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, frameon=False, handletextpad=0.2)
    return ax


def merge_map(
    ax: Axes,
    image: np.ndarray,
    centres: ArrayLike,
    grid: tuple[int, int],
    title: str = "",
    boxes: Sequence | None = None,
) -> Axes:
    """A line from every dropped token to the kept token that takes it in.

    Parameters
    ----------
    centres : [N] the kept token of each token; a kept token is its own.
    """
    centres = np.asarray(centres, dtype=int)
    kept = np.flatnonzero(centres == np.arange(len(centres)))
    kept_overlay(image, kept, grid, boxes=boxes, title=title, ax=ax)
    height, width = image.shape[:2]
    start, end = (np.stack(_middles(t, grid, width, height), 1) for t in (np.arange(len(centres)), centres))
    colours = sns.color_palette("husl", len(kept))
    paint = [colours[np.searchsorted(kept, centre)] for centre in centres]
    ax.add_collection(LineCollection(np.stack([start, end], 1), colors=paint, linewidths=1.0, alpha=0.9))
    ax.scatter(
        end[kept, 0],
        end[kept, 1],
        s=26,
        c=[colours[i] for i in range(len(kept))],
        edgecolors="black",
        zorder=3,
    )
    return ax


def numbered(
    ax: Axes, tokens: Sequence[int], grid: tuple[int, int], size: tuple[int, int] | None = None
) -> Axes:
    """Frame tokens and number them in the order given."""
    height, width = size or grid
    _frame(ax, tokens, grid, width, height)
    x, y = _middles(tokens, grid, width, height)
    for place, (across, down) in enumerate(zip(x, y, strict=True), start=1):
        ax.text(
            across,
            down,
            str(place),
            color="white",
            ha="center",
            va="center",
            fontsize=FONT - 1,
            fontweight="bold",
        )
    return ax


def _middles(
    tokens: Sequence[int], grid: tuple[int, int], width: float, height: float
) -> tuple[np.ndarray, np.ndarray]:
    down, across = np.divmod(np.asarray(tokens, dtype=int), grid[1])
    return (across + 0.5) * width / grid[1], (down + 0.5) * height / grid[0]


def _frame(ax: Axes, tokens: Sequence[int], grid: tuple[int, int], width: float, height: float) -> None:
    tall, wide = height / grid[0], width / grid[1]
    for x, y in zip(*_middles(tokens, grid, width, height), strict=True):
        corner = (x - wide / 2, y - tall / 2)
        ax.add_patch(Rectangle(corner, wide, tall, fill=False, edgecolor="black", linewidth=2.4))
        ax.add_patch(Rectangle(corner, wide, tall, fill=False, edgecolor="white", linewidth=1.2))


def _finish(ax: Axes, width: float, height: float, title: str, boxes: Sequence | None) -> None:
    for left, top, right, bottom in () if boxes is None else boxes:
        corner, extent = (left, top), (right - left, bottom - top)
        ax.add_patch(Rectangle(corner, *extent, fill=False, edgecolor=ORANGE, linewidth=2.2, linestyle=_DASH))
    ax.set_title(title)
    ax.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
