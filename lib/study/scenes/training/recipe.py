"""What the embedded model is made of at each grid: sizes, whole pictures and both curricula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lib.models.architectures import Sizes
from lib.study.scenes.layout import PATCH, Layout
from lib.study.scenes.training import train_decoder, train_tower
from lib.study.scenes.training.train_decoder import HALF, NINE

SIXTEEN, WHOLE = Layout(), Layout(cells=8, badges=8)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is made; `tower` and `decoder` give the phases of a factor on all step counts.

    Raises
    ------
    ValueError
        When the whole picture is not what the vision tower takes.
    """

    sizes: Sizes
    frame: Layout  # of whole pictures; smaller ones of the curricula lie somewhere in its place
    tower: Callable[[float], tuple[train_tower.Phase, ...]]
    decoder: Callable[[float], tuple[train_decoder.Phase, ...]]

    def __post_init__(self) -> None:
        if (self.sizes.image, self.sizes.patch) != (self.frame.pixels, PATCH):
            raise ValueError(
                f"frame must be {self.sizes.image} pixels in patches of {self.sizes.patch}, as sizes says, "
                f"got {self.frame.pixels} in patches of {PATCH}"
            )


def tower_24(scale: float = 1.0) -> tuple[train_tower.Phase, ...]:
    """As `train_tower.curriculum`, with pictures of 4 x 4 cells before whole ones; batches fill a large GPU.

    A plan by analogy: no run has tuned its step counts.
    """
    small = train_tower.curriculum()  # single items, then four cells
    one, four = small[0].layouts, small[1].layouts
    plan = (
        (700, 512, 1.5e-3, one),
        (700, 256, 1e-3, four),
        (800, 192, 8e-4, ((1.0, SIXTEEN),)),
        (800, 128, 8e-4, ((1.0, WHOLE),)),
        (300, 96, 6e-4, ((1.0, WHOLE), *((1.5 * share, item) for share, item in one))),
    )
    return tuple(
        train_tower.Phase(steps=max(1, round(scale * steps)), batch=batch, rate=rate, layouts=layouts)
        for steps, batch, rate, layouts in plan
    )


def decoder_24(scale: float = 1.0) -> tuple[train_decoder.Phase, ...]:
    """As `train_decoder.curriculum`, with prompts of 36, 81, 144 and 576 visual tokens; batches fill a large GPU.

    A plan by analogy: no run has tuned its step counts.
    """
    mixed = ((0.10, HALF), (0.15, NINE), (0.20, SIXTEEN), (0.55, WHOLE))
    steps = [max(1, round(scale * n)) for n in (500, 1000, 1500)]
    return (
        train_decoder.Phase(
            steps=steps[0], batch=32, rate=1.5e-3, layouts=((0.6, HALF), (0.4, NINE)), stories=1
        ),
        train_decoder.Phase(steps=steps[1], batch=32, rate=1e-3, layouts=mixed),
        train_decoder.Phase(steps=steps[2], batch=32, rate=1e-3, layouts=mixed, per_suite=2, counts=8),
    )


# At 24 x 24 a picture is 192 pixels of the same patches and cells, with the same six objects and one card: an object touches
# about nine of 576 tokens instead of nine of 144, so evidence is rarer, as it is at the papers' grid. Eight badges on 64
# cells cover the same share of the picture as two on 16; fewer would also make the salient distractors rarer.
RECIPES = {
    12: Recipe(sizes=Sizes(), frame=Layout(), tower=train_tower.curriculum, decoder=train_decoder.curriculum),
    24: Recipe(
        sizes=Sizes(image=192, vision_layers=6, layers=7), frame=WHOLE, tower=tower_24, decoder=decoder_24
    ),
}


def recipe_of(grid: int) -> Recipe:
    """The recipe of a grid of `grid` x `grid` visual tokens.

    Raises
    ------
    ValueError
        When there is none.
    """
    if grid not in RECIPES:
        raise ValueError(f"grid must be one of {', '.join(map(str, RECIPES))}, got {grid!r}")
    return RECIPES[grid]
