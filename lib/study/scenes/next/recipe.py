"""What the model of 24 x 24 visual tokens is made of: sizes, whole pictures and both curricula."""

from __future__ import annotations

from dataclasses import replace

from lib.models.architectures import Sizes
from lib.study.scenes.next import decoder as training
from lib.study.scenes.next.words import caption
from lib.study.scenes.next.world import Layout, generate
from lib.study.scenes.training import train_tower

WHOLE = Layout()
WORLD = train_tower.World(generate, caption)
SIZES = Sizes(image=WHOLE.pixels, vision_layers=6, width=96, layers=24, head=32, intermediate=256)
SHALLOW = replace(SIZES, layers=SIZES.layers // 2)  # what the decoder grows from


def _small(pixels: int, objects: int, cards: int, badges: int, shapes: int = WHOLE.shapes) -> Layout:
    """A picture of fewer pixels with items of the same sizes, as far as they fit."""
    return Layout(pixels=pixels, objects=objects, cards=cards, badges=badges, shapes=shapes)


ONE = (  # single items, a whole one in 8 x 8 patches
    (0.60, _small(64, 1, 0, 0, shapes=6)),
    (0.34, _small(64, 0, 1, 0)),
    (0.06, _small(64, 0, 0, 1)),
)
DIGITS = ((0.40, _small(64, 1, 0, 0)), (0.55, _small(64, 0, 1, 0)), (0.05, _small(64, 0, 0, 1)))
FEW = ((0.5, _small(96, 2, 1, 0)), (0.5, _small(96, 1, 1, 1)))
HALF = _small(128, 3, 1, 1)


def tower(scale: float = 1.0) -> tuple[train_tower.Phase, ...]:
    """Single items, a few, half a picture, then whole pictures and single items side by side.

    Twice two phases were added when probes on validation pictures had shown what was left: after the first four colours known, shapes
    nearly, digits not (.63); after the next two shapes .90 and digits .91, below the .95 that the decoder needs. They are single items
    again, more than half of them cards, and whole pictures.

    A picture of 8 x 8 patches costs a fifteenth of a whole one, so what an item is, is learned there.
    """
    plan = (
        (600, 192, 1.5e-3, ONE),
        (500, 96, 1e-3, FEW),
        (250, 64, 8e-4, ((1.0, HALF),)),
        (350, 32, 8e-4, ((1.0, WHOLE), *((1.5 * share, item) for share, item in ONE))),
        (1200, 160, 1.2e-3, DIGITS),
        (500, 24, 8e-4, ((1.0, WHOLE), *((2.0 * share, item) for share, item in DIGITS))),
        (1800, 160, 1.2e-3, DIGITS),
        (600, 24, 8e-4, ((1.0, WHOLE), *((2.0 * share, item) for share, item in DIGITS))),
    )
    return tuple(
        train_tower.Phase(steps=max(1, round(scale * steps)), batch=batch, rate=rate, layouts=layouts)
        for steps, batch, rate, layouts in plan
    )


TWO, THREE = _small(96, 2, 1, 0), _small(96, 3, 0, 0)
FIVE = _small(128, 4, 1, 1)
MIXED = ((0.15, THREE), (0.45, FIVE), (0.40, WHOLE))


def shallow(scale: float = 1.0) -> tuple[training.Phase, ...]:
    """Two or three items first, where a neighbour is easily found, then half pictures and whole ones: for half of the layers.

    Where all 24 were trained from the start, on an earlier tower, `exists` and `relate` were guesses after 700 steps; 12 cost half as
    much a step and are known to learn faster.
    """
    few = ((0.35, TWO), (0.35, THREE), (0.30, FIVE))
    return _lessons(
        scale, (900, 8, 1.5e-3, few, (3, 3, 4, 3, 1, 1, 5)), (700, 10, 1e-3, MIXED, (3, 3, 4, 3, 1, 1, 5))
    )


def decoder(scale: float = 1.0) -> tuple[training.Phase, ...]:
    """For all layers, which begin as what half of them have learned: half pictures, then mostly whole ones.

    `relate`, the suite of two looks, has the most questions throughout; counting gains where it lags.
    """
    whole = ((0.10, THREE), (0.20, FIVE), (0.70, WHOLE))
    return _lessons(
        scale, (300, 10, 1e-3, MIXED, (3, 3, 4, 3, 1, 1, 5)), (1200, 12, 1e-3, whole, (2, 2, 5, 2, 2, 1, 6))
    )


def _lessons(scale: float, *plan: tuple) -> tuple[training.Phase, ...]:
    return tuple(
        training.Phase(
            steps=max(1, round(scale * steps)), batch=batch, rate=rate, layouts=layouts, times=times
        )
        for steps, batch, rate, layouts, times in plan
    )
