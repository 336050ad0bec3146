"""Watching the vision tower: everything about an image that a selection method may ask for."""

from __future__ import annotations

import threading
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
from lib.models.borrowed import kernel_name
from lib.models.clip import ClipPair, TextCues, patches
from lib.models.gate import Gate
from lib.models.guards import Uncopied
from lib.models.refusals import check_held
from lib.models.tiles import Encoded
from lib.pruning.methods import Needs
from lib.pruning.selection import lattice_places


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the caller adds to the images: one entry a sample, or None."""

    text: Sequence[str] | None = None
    words: TextCues | None = None
    clip: ClipPair | None = None
    evidence: Tensor | None = None


class Watch(Uncopied, threading.local):
    """Hooks on the vision tower that collect the cues of the latest batch of images.

    The tower is watched by itself because `generate` encodes the images before the language model is first
    called. What was seen therefore lives until the tower starts again in the same thread, and not until the end of a
    forward.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        needs: Needs,
        given: Given,
        gate: Gate,
        lattice: tuple[int, int] | None = None,
    ) -> None:
        self.anatomy, self.needs, self.given, self.gate = anatomy, needs, given, gate
        self.lattice = None if lattice == anatomy.grid else lattice
        self.pixels: Tensor | None = None
        self.grids: list[list[int]] | None = None
        self.saliency: list[Tensor] = []
        self.residual: Tensor | None = None
        self.keys: Tensor | None = None

    def install(self, stack: ExitStack) -> None:
        """Put the hooks in place; `stack` takes them off again."""
        layers, guard = self.anatomy.vision_layers, self.gate.hook
        tower = self.anatomy.tower.register_forward_pre_hook(guard(self._start), with_kwargs=True)
        stack.callback(tower.remove)
        for name in ("saliency_layer", "vision_keys"):
            layer = getattr(self.needs, name)
            if layer is not None and not -len(layers) <= layer < len(layers):
                raise ValueError(f"{name} must be within the {len(layers)} vision layers, got {layer}")
        if self.needs.saliency_layer is not None:
            self._check_whole(self.needs.saliency_layer % len(layers))
            attention = self.anatomy.vision_attention(self.needs.saliency_layer)
            stack.enter_context(probe(attention, guard(self._look)))
        if self.needs.vision_keys is not None:
            attention = self.anatomy.vision_attention(self.needs.vision_keys)
            fused = getattr(attention, "qkv", None)
            hook = partial(self._keys, attention.num_heads, fused is not None)
            stack.callback((fused or attention.k_proj).register_forward_hook(guard(hook)).remove)
        if self.needs.patches is not None:
            last = layers[-1].register_forward_pre_hook(guard(self._last_layer), with_kwargs=True)
            stack.callback(last.remove)

    def _check_whole(self, layer: int) -> None:
        """Refuse a layer whose attention is not one picture's, [CLS] or received."""
        tower, name = self.anatomy.tower, self.anatomy.name
        whole = getattr(tower, "fullatt_block_indexes", None)
        if whole is not None and layer not in whole:
            raise ValueError(
                f"saliency_layer must be a layer of {name} that sees the whole image ({', '.join(map(str, whole))}), "
                f"got {layer}"
            )
        if self.anatomy.unit > 1 and "flash" in kernel_name(tower.config):
            raise ValueError(
                f"saliency of {name} needs its vision tower in sdpa or eager attention: flash kernels see all images at once"
            )

    def _start(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        self.residual = self.keys = None
        self.saliency = []
        pixels = args[0] if args else kwargs["pixel_values"]
        self.pixels = pixels if self.needs.seeds else None
        grids = kwargs.get("grid_thw")
        self.grids = None if grids is None else grids.tolist()
        if self.lattice is None:
            return None
        check_held(module, pixels)
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
        # Encoders of packed images attend picture by picture, one call each.
        self.saliency.append(sight.row(0)[:, :, 1:] if self.anatomy.family.cls else sight.received())

    def _keys(self, heads: int, fused: bool, module: nn.Module, args: tuple, output: Tensor) -> None:
        keys = output.chunk(3, -1)[1] if fused else output
        keys = keys[:, 1:] if self.anatomy.family.cls else keys
        self.keys = keys.unflatten(-1, (heads, -1)).mean(-2)

    def _last_layer(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.residual = args[0] if args else kwargs["hidden_states"]

    def encoded(self, features: Tensor) -> Encoded:
        """The images and every cue that needs no language model, row by row of the projector's output.

        `features` [T, P, D], or [P, D] of packed patches, are what enters the projector.

        Raises
        ------
        ValueError
            If the encoder gave another grid than the model's configuration says.
        """
        tokens = self.anatomy.tokens
        if tokens is not None and features.shape[1] != tokens:
            raise ValueError(f"encoder must give {tokens} patches an image, got {features.shape[1]}")
        rows = features.reshape(-1, features.shape[-1] * self.anatomy.unit)
        found = Encoded(rows, features.shape, pixels=self.pixels, grids=self.grids)
        if self.saliency:
            heads_last = [values.transpose(1, 2).flatten(0, 1) for values in self.saliency]
            found.cues["saliency"] = self._rows(torch.cat(heads_last)).to(features.device)
        if self.keys is not None:
            found.cues["vision_keys"] = self._rows(self.keys.flatten(0, -2)).to(features.device)
        if self.needs.patches is not None:
            local, image = self._patches()
            found.cues["patches"] = local.flatten(0, 1).to(features.device)
            found.tiles["image"] = image.to(features.device)
        return found

    def _rows(self, patches: Tensor) -> Tensor:
        """Mean over the patches [P, ...] that make each row of the projector's output, [M, ...]."""
        members = self.anatomy.family.members
        if members is None:
            return patches
        return patches[members(self.anatomy, len(patches)).to(patches.device)].mean(1)

    def _patches(self) -> tuple[Tensor, Tensor]:
        tower, last = self.anatomy.tower, self.anatomy.vision_layers[-1]
        projection = self.given.clip.visual_projection
        return patches(last, self.residual, tower.post_layernorm, projection, self.needs.patches)


def row_seeds(images: Sequence[Tensor], text: Sequence[str] | None) -> list[int]:
    """One seed per image from its own pixels and text alone, so that batch mates change nothing.

    Parameters
    ----------
    images : what enters the encoder for each image. Read on the host, hence only for methods that draw numbers.
    text : None, or one string per image.
    """
    rows = [image.detach().to("cpu", torch.float32).contiguous() for image in images]
    sums = [zlib.crc32(row.numpy().tobytes()) for row in rows]
    if text is None:
        return sums
    return [zlib.crc32(words.encode(), total) for total, words in zip(sums, text, strict=False)]
