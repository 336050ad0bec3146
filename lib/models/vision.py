"""Watching the vision tower: everything about an image that a selection method may ask for."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lib.models.anatomy import Anatomy
from lib.models.attention import Sight, probe
from lib.models.clip import ClipPair, TextCues, patches
from lib.pruning.methods import Needs
from lib.pruning.selection import lattice_places


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the caller adds to the images: one entry a sample, or None."""

    text: Sequence[str] | None = None
    words: TextCues | None = None
    clip: ClipPair | None = None
    evidence: Tensor | None = None


class Watch:
    """Hooks on the vision tower that collect the cues of the latest batch of images.

    The tower is watched by itself because `generate` encodes the images before the language model is first
    called. What was seen therefore lives until the tower starts again, and not until the end of a forward.
    """

    def __init__(
        self, anatomy: Anatomy, needs: Needs, given: Given, lattice: tuple[int, int] | None = None
    ) -> None:
        self.anatomy, self.needs, self.given = anatomy, needs, given
        self.lattice = None if lattice == anatomy.grid else lattice
        self.saliency: Tensor | None = None
        self.residual: Tensor | None = None
        self.keys: Tensor | None = None
        self.seeds: list[int] | None = None

    def install(self, stack: ExitStack) -> None:
        """Put the hooks in place; `stack` takes them off again."""
        layers = self.anatomy.vision_layers
        tower = self.anatomy.tower.register_forward_pre_hook(self._start, with_kwargs=True)
        stack.callback(tower.remove)
        for name in ("saliency_layer", "vision_keys"):
            layer = getattr(self.needs, name)
            if layer is not None and not -len(layers) <= layer < len(layers):
                raise ValueError(f"{name} must be within the {len(layers)} vision layers, got {layer}")
        if self.needs.saliency_layer is not None:
            stack.enter_context(probe(layers[self.needs.saliency_layer].self_attn, self._look))
        if self.needs.vision_keys is not None:
            attention = layers[self.needs.vision_keys].self_attn
            hook = partial(self._keys, attention.num_heads)
            stack.callback(attention.k_proj.register_forward_hook(hook).remove)
        if self.needs.patches is not None:
            last = layers[-1].register_forward_pre_hook(self._last_layer, with_kwargs=True)
            stack.callback(last.remove)

    def _start(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        self.saliency = self.residual = self.keys = self.seeds = None
        pixels = args[0] if args else kwargs["pixel_values"]
        if self.needs.seeds:
            self.seeds = row_seeds(pixels, self.given.text)
        if self.lattice is None:
            return None
        patch = pixels.shape[-1] // self.anatomy.grid[1]
        size = [side * patch for side in self.lattice]
        small = interpolate(pixels, size, mode="bicubic", antialias=True)
        return (small, *args[1:]), {k: v for k, v in kwargs.items() if k != "pixel_values"} | {
            "interpolate_pos_encoding": True
        }

    def spread(self, features: Tensor) -> Tensor:
        """Features [B, M, D] of a smaller image at their places in the full grid, [B, N, D]; zero elsewhere."""
        if self.lattice is None:
            return features
        places = torch.tensor(lattice_places(self.anatomy.grid, self.lattice), device=features.device)
        full = features.new_zeros(features.shape[0], self.anatomy.tokens, features.shape[2])
        return full.index_copy(1, places, features)

    def _look(self, sight: Sight) -> None:
        self.saliency = sight.row(0)[:, :, 1:]

    def _keys(self, heads: int, module: nn.Module, args: tuple, output: Tensor) -> None:
        self.keys = output[:, 1:].unflatten(-1, (heads, -1)).mean(2)

    def _last_layer(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.residual = args[0] if args else kwargs["hidden_states"]

    def cues(self, features: Tensor) -> dict[str, object]:
        """Every cue that needs no language model, as fields of `Cues`.

        `features` [B, N, D] are what enters the projector.

        Raises
        ------
        ValueError
            If the images, texts and evidence masks differ in number, or the encoder gave another grid.
        """
        images, tokens, _ = features.shape
        if tokens != self.anatomy.tokens:
            raise ValueError(f"encoder must give {self.anatomy.tokens} patches an image, got {tokens}")
        self._match(images)
        found: dict[str, object] = {}
        if self.saliency is not None:
            found["saliency"] = self.saliency
        if self.keys is not None:
            found["vision_keys"] = self.keys
        if self.needs.patches is not None:
            found["patches"], found["image"] = self._patches()
        words, evidence = self.given.words, self.given.evidence
        if words is not None:
            found["tokens"], found["sentence"] = words.tokens, words.sentence
            found["text_valid"], found["text_special"] = words.valid, words.special
            found["text_importance"] = words.importance
        if evidence is not None:
            found["evidence"] = evidence
        placed = {name: value.to(features.device) for name, value in found.items()}
        return placed | ({"seeds": self.seeds} if self.seeds is not None else {})

    def _patches(self) -> tuple[Tensor, Tensor]:
        tower, last = self.anatomy.tower, self.anatomy.vision_layers[-1]
        projection = self.given.clip.visual_projection
        return patches(last, self.residual, tower.post_layernorm, projection, self.needs.patches)

    def _match(self, images: int) -> None:
        text, evidence = self.given.text, self.given.evidence
        if text is not None and len(text) != images:
            raise ValueError(f"text must hold one string per image, got {len(text)} for {images} images")
        shape = (images, self.anatomy.tokens)
        if evidence is not None and tuple(evidence.shape) != shape:
            raise ValueError(f"evidence must have shape {shape}, got {tuple(evidence.shape)}")


def row_seeds(pixels: Tensor, text: Sequence[str] | None) -> list[int]:
    """One seed per image from its own pixels and text alone, so that batch mates change nothing.

    Parameters
    ----------
    pixels : [B, C, H, W]. Read on the host, hence only for methods that draw numbers.
    text : None, or one string per image.
    """
    rows = pixels.detach().to("cpu", torch.float32).contiguous()
    sums = [zlib.crc32(row.numpy().tobytes()) for row in rows]
    if text is None:
        return sums
    return [zlib.crc32(words.encode(), total) for total, words in zip(sums, text, strict=False)]
