"""What an image becomes on its way into the language model: one small function per way to cut it up.

Encoders see an image as one or several rectangles (the whole, crops, frames). Each visual token of the prompt is one row
of the projector's output, or none (a newline). A method looks at one rectangle at a time, a `View`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lib.models.borrowed import get_vision_window_index

if TYPE_CHECKING:
    from lib.models.anatomy import Anatomy


@dataclass(frozen=True)
class View:
    """A rectangle of visual tokens: `grid` (rows, columns), `tokens` [n] their ascending places among the visual tokens
    of the sample, `tile` the number of the encoder's picture that they come from."""

    grid: tuple[int, int]
    tokens: Tensor
    tile: int


@dataclass(frozen=True)
class Picture:
    """The image of one sample.

    `rows` [N] int64 names for each visual token its row of the projector's output, -1 for a token that is none;
    `source` is the part of the encoder's input that belongs to the sample.
    """

    rows: Tensor
    views: tuple[View, ...]
    source: slice

    @property
    def loose(self) -> Tensor:
        """Places of the visual tokens that are in no view, as newlines."""
        return (self.rows < 0).nonzero()[:, 0]


@dataclass
class Encoded:
    """The latest batch of images: what went through the projector, and the cues that came with it.

    `features` [M, D] and `projected` [M, W] are the projector's rows, with `shape` that of its input; `cues` hold [M, ...],
    `tiles` cues of whole pictures [T, ...]; `pixels` what entered the encoder; `grids` (frames, rows, columns) of patches
    and `packed` the numbers of the rows in the order of the prompt, for families that tell.
    """

    features: Tensor
    shape: torch.Size
    cues: dict[str, Tensor] = field(default_factory=dict)
    tiles: dict[str, Tensor] = field(default_factory=dict)
    pixels: Tensor | None = None
    grids: list[list[int]] | None = None
    packed: list[Tensor] | None = None
    projected: Tensor | None = None


Layout = Callable[["Anatomy", Encoded, Callable[[], Sequence[int]]], list[Picture]]


def one_tile(anatomy: Anatomy, encoded: Encoded, counts: Callable[[], Sequence[int]]) -> list[Picture]:
    """Every image is one picture of the same grid (LLaVA-1.5)."""
    tokens = anatomy.tokens
    places = torch.arange(tokens)  # pyrefly: ignore[no-matching-overload]  # one grid, so known
    return [
        Picture(places + tile * tokens, (View(anatomy.tile, places, tile),), slice(tile, tile + 1))
        for tile in range(len(encoded.features) // tokens)
    ]


def packed_tiles(anatomy: Anatomy, encoded: Encoded, counts: Callable[[], Sequence[int]]) -> list[Picture]:
    """The whole and crops, unpadded, with newlines: read off the model's own packing (LLaVA-NeXT, LLaVA-OneVision)."""
    pictures, first = [], 0
    for raster, tiles in encoded.packed:  # pyrefly: ignore[not-iterable]  # families that pack
        pictures.append(_picture(raster, anatomy.tile, first, tiles))
        first += tiles
    return pictures


def counted_tiles(anatomy: Anatomy, encoded: Encoded, counts: Callable[[], Sequence[int]]) -> list[Picture]:
    """As many equal tiles as the prompt has placeholders for (InternVL)."""
    size = anatomy.tile[0] * anatomy.tile[1]
    rows = list(counts())
    repeat = max(1, sum(rows) // len(encoded.features))  # a beam search repeats the prompt, not the images
    pictures, first = [], 0
    for count in rows[::repeat]:
        if count == 0 or count % size:
            raise ValueError(
                f"input_ids must have a multiple of {size} visual tokens in every row, got {rows}"
            )
        pictures.append(_picture(torch.arange(count), anatomy.tile, first, count // size))
        first += count // size
    if first * size != len(encoded.features):
        raise ValueError(
            f"input_ids must have visual tokens for {len(encoded.features) // size} tiles, got {first}"
        )
    return pictures


def patch_grids(anatomy: Anatomy, encoded: Encoded, counts: Callable[[], Sequence[int]]) -> list[Picture]:
    """A grid of its own for every image, frame after frame for a video (Qwen-VL)."""
    side = int(anatomy.tower.spatial_merge_size)
    order = anatomy.family.order(anatomy, encoded.grids) if anatomy.family.order else None
    pictures, row = [], 0
    for frames, height, width in encoded.grids:  # pyrefly: ignore[not-iterable]  # families that tell
        grid = height // side, width // side
        size = grid[0] * grid[1]
        places = torch.arange(frames * size)
        rows = places + row if order is None else order[places + row]
        views = tuple(View(grid, places[at * size : (at + 1) * size], at) for at in range(frames))
        unit = side * side
        pictures.append(Picture(rows, views, slice(row * unit, (row + len(places)) * unit)))
        row += len(places)
    return pictures


def _picture(raster: Tensor, tile: tuple[int, int], first: int, tiles: int) -> Picture:
    """The picture whose visual tokens are the cells `raster` [N] of `tiles` tiles, -1 for none."""
    size = tile[0] * tile[1]
    views = []
    for number in range(tiles):
        tokens = (raster.div(size, rounding_mode="floor") == number).nonzero()[:, 0]
        if len(tokens):  # a crop may be padding alone
            cells = raster[tokens] % size
            lines, columns = (cells // tile[1]).unique(), (cells % tile[1]).unique()
            views.append(View((len(lines), len(columns)), tokens, first + number))
    rows = torch.where(raster < 0, raster, raster + first * size)
    return Picture(rows, tuple(views), slice(first, first + tiles))


def window_order(anatomy: Anatomy, grids: list[list[int]]) -> Tensor:
    """Row of the merger for each visual token where the encoder works in windows (Qwen2.5-VL), [M]."""
    tower = anatomy.tower
    index, _ = get_vision_window_index(
        torch.tensor(grids),
        spatial_merge_size=tower.spatial_merge_size,
        window_size=tower.window_size,
        patch_size=tower.patch_size,
        kwargs={},
    )
    return index.cpu().argsort()


def merged_blocks(anatomy: Anatomy, patches: int) -> Tensor:
    """Patches of each projector row, [M, m]: blocks of neighbours in the encoder's own order (Qwen-VL)."""
    return torch.arange(patches).view(-1, anatomy.tower.spatial_merge_size**2)


def shuffled_pixels(anatomy: Anatomy, patches: int) -> Tensor:
    """Patches of each projector row, [M, m]: the model's own pixel shuffle of their numbers (InternVL)."""
    config = anatomy.core.config
    rows, columns = patch_grid(config.vision_config)
    numbers = torch.arange(patches).view(-1, rows, columns, 1)
    return anatomy.core.pixel_shuffle(numbers, scale_factor=config.downsample_ratio).flatten(0, 2)


def patch_grid(vision_config) -> tuple[int, int]:
    """(rows, columns) of the patches that the encoder cuts an image of its own size into."""
    sizes = (vision_config.image_size, vision_config.patch_size)
    (height, width), (down, across) = (s if isinstance(s, (tuple, list)) else (s, s) for s in sizes)
    return height // down, width // across


def pack_numbers(pack: Callable, given: Mapping) -> list[tuple[Tensor, int]]:
    """Run a model's packing of crops on the numbers of their cells.

    Parameters
    ----------
    pack, given : the model's `pack_image_features` and its arguments, by name; its features are [tiles, cells, W] an image.

    Returns
    -------
    For each image the cell of each visual token [N] (tile * cells + cell; -1 for a newline) and its number of tiles.

    Raises
    ------
    ValueError
        If the model blends cells, so that its tokens are no rows of the projector's output.
    """
    images = given["image_features"]
    numbers = []
    for image in images:
        cells = torch.arange(image.shape[0] * image.shape[1], dtype=torch.float64).view(*image.shape[:2], 1)
        numbers.append(torch.cat([cells, cells * cells], -1))
    newline = torch.full((2,), torch.nan, dtype=torch.float64)
    packed, _ = pack(**(dict(given) | {"image_features": numbers, "image_newline": newline}))
    found = []
    for image, pair in zip(images, packed, strict=True):
        cells = pair.nan_to_num(-1.0)
        # The mean of several squares is not the square of their mean, so the second channel tells a blend.
        if not torch.equal(cells[:, 1].abs(), cells[:, 0] ** 2):
            raise ValueError("image_sizes ask for crops that the model interpolates: they cannot be pruned")
        found.append((cells[:, 0].long(), image.shape[0]))
    return found


def no_shortening(kwargs: Mapping, index: Tensor, stays: Tensor, flat: Tensor) -> dict:
    """Nothing besides the sequence itself (most families)."""
    return {}


def shorten_deepstack(kwargs: Mapping, index: Tensor, stays: Tensor, flat: Tensor) -> dict:
    """What Qwen3-VL adds to its first layers, for the visual tokens that stay: columns `index` [B, S'] of which `stays`
    [B, S'] are kept, and their places `flat` among all visual tokens of the batch."""
    if kwargs.get("deepstack_visual_embeds") is None:
        return {}
    visual = kwargs["visual_pos_masks"]
    return {
        "visual_pos_masks": visual.gather(1, index) & stays,
        "deepstack_visual_embeds": [embeds[flat] for embeds in kwargs["deepstack_visual_embeds"]],
    }


def quotas(sizes: Sequence[int], total: int) -> list[int]:
    """Share `total` tokens among views of these sizes: in proportion, largest remainders first, at least one each.

    Raises
    ------
    ValueError
        If there are fewer tokens than views.
    """
    if total < len(sizes):
        raise ValueError(f"keep must leave at least one token for each of {len(sizes)} crops, got {total}")
    ideal = [total * size / sum(sizes) for size in sizes]
    given = [max(1, int(share)) for share in ideal]
    while sum(given) < total:
        given[max(range(len(sizes)), key=lambda at: (ideal[at] - given[at], -at))] += 1
    while sum(given) > total:
        given[
            min((at for at in range(len(sizes)) if given[at] > 1), key=lambda at: ideal[at] - given[at])
        ] -= 1
    return given
