"""Sizes of the models whose cost is studied: the published ones, and the same shapes scaled down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of a LLaVA: a CLIP vision tower, a two-layer projector, a Llama decoder, and CLIP's text tower.

    Attributes
    ----------
    name : as records and figures show it; a scaled-down one says so in its name.
    grid : patches a side of one tile; `tiles` go through the tower one by one (LLaVA-NeXT: the whole and four crops).
    vision_*, text_*, joint : CLIP's two towers and the width of their joint space; feed-forwards are four times as wide.
    width, intermediate, layers, heads, kv_heads : the decoder's.
    """

    name: str
    grid: int
    tiles: int = 1
    patch: int = 14
    vision_width: int = 1024
    vision_layers: int = 24
    vision_heads: int = 16
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    joint: int = 768
    width: int = 4096
    intermediate: int = 11008
    layers: int = 32
    heads: int = 32
    kv_heads: int = 32
    vocab: int = 32064

    @property
    def tokens(self) -> int:
        """Visual tokens of an image."""
        return self.tiles * self.grid**2

    @property
    def lattice(self) -> tuple[int, int]:
        """Rows and columns of an image's visual tokens, as a selection sees them; tiles lie one below the other."""
        return self.tiles * self.grid, self.grid

    @property
    def head_width(self) -> int:
        """Width of one attention head of the decoder."""
        return self.width // self.heads

    @property
    def kv_ratio(self) -> float:
        """Key-value heads over query heads."""
        return self.kv_heads / self.heads


# Published configurations: CLIP ViT-L/14 at 336 pixels with Vicuna-7B, and with Mistral-7B (grouped keys). LLaVA-NeXT
# counts 2,880 tokens as its papers do: newline tokens and unpadding depend on the picture and are left out.
LLAVA = Architecture(name="LLaVA-1.5-7B", grid=24)
NEXT = Architecture(name="LLaVA-NeXT-7B (Vicuna)", grid=24, tiles=5)
MISTRAL = Architecture(name="LLaVA-NeXT-7B (Mistral)", grid=24, tiles=5, intermediate=14336, kv_heads=8)
_SMALL = {
    "vision_width": 256,
    "vision_layers": 4,
    "vision_heads": 4,
    "text_width": 192,
    "text_layers": 3,
    "text_heads": 3,
    "joint": 192,
    "width": 256,
    "intermediate": 688,
    "layers": 4,
    "heads": 4,
    "kv_heads": 4,
    "vocab": 2048,
}
_TINY = _SMALL | {
    "vision_width": 64,
    "vision_heads": 2,
    "vision_layers": 2,
    "text_width": 64,
    "text_layers": 2,
    "text_heads": 2,
    "joint": 64,
    "width": 128,
    "intermediate": 344,
    "heads": 2,
    "kv_heads": 2,
    "vocab": 256,
}
# The same shapes at three sizes; the smaller ones are for machines without an accelerator.
SIZES: Mapping[str, tuple[Architecture, ...]] = MappingProxyType(
    {
        "full": (LLAVA, NEXT),
        "small": (
            Architecture(name="llava-1.5 scaled: 4 layers, width 256", grid=24, **_SMALL),
            Architecture(name="llava-next scaled: 4 layers, width 256", grid=24, tiles=5, **_SMALL),
        ),
        "tiny": (
            Architecture(name="llava-1.5 scaled: 4 layers, width 128, 12 x 12 tokens", grid=12, **_TINY),
        ),
    }
)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Widths and depths of the embedded model; the grid is a parameter like any other."""

    image: int = 96  # pixels a side
    patch: int = 8  # pixels a side: 12 x 12 visual tokens
    vision_width: int = 128
    vision_layers: int = 5
    text_width: int = 128
    text_layers: int = 2
    joint: int = 128  # joint image-text space
    width: int = 192  # decoder
    layers: int = 5
    head: int = 32  # width of an attention head of the decoder
    intermediate: int = 512

    @property
    def grid(self) -> int:
        return self.image // self.patch

    def architecture(self, vocab: int) -> Architecture:
        """The same sizes as those of any other LLaVA; `vocab` words."""
        return Architecture(
            name="embedded",
            grid=self.grid,
            patch=self.patch,
            vision_width=self.vision_width,
            vision_layers=self.vision_layers,
            vision_heads=self.vision_width // 16,
            text_width=self.text_width,
            text_layers=self.text_layers,
            text_heads=self.text_width // 32,
            joint=self.joint,
            width=self.width,
            intermediate=self.intermediate,
            layers=self.layers,
            heads=self.width // self.head,
            kv_heads=self.width // self.head,
            vocab=vocab,
        )
