"""A narrow LLaVA of 32 layers with random weights, and its language model in NumPy: for rules that read what runs inside.

The library prunes the model as transformers runs it; a rule runs the same weights, one plain layer after the other, and cuts
where its release does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from lib.models.architectures import Architecture
from lib.models.embedded import IMAGE
from lib.models.prune import prune
from lib.models.random_weights import llava
from lib.pruning import methods
from lib.study.parity.trial import Case, Draw, Told
from lib.study.replay import Replay

BEFORE, AFTER = 3, 7  # words of the prompt on either side of the image
LAYERS = 32  # so that published layers are themselves
PATCH = 2  # pixels a side
VOCABULARY = 64


@lru_cache(maxsize=4)
def model(side: int, seed: int) -> nn.Module:
    """A LLaVA of ``side`` x ``side`` visual tokens in double precision; more than 14 heads, grouped keys."""
    sizes = Architecture(
        name="narrow",
        grid=side,
        patch=PATCH,
        width=64,
        intermediate=96,
        layers=LAYERS,
        heads=16,
        kv_heads=8,
        vocab=VOCABULARY,
        vision_width=16,
        vision_layers=2,
        vision_heads=2,
        joint=16,
    )
    made, draw = llava(sizes, dtype=torch.float64), torch.Generator().manual_seed(seed)
    for name, weight in made.named_parameters():  # as initialised, all attention would be flat
        noise = torch.randn(weight.shape, generator=draw, dtype=weight.dtype)
        if "norm" in name:
            weight.copy_(0.2 * noise + (0.0 if name.endswith("bias") else 1.0))
        else:
            weight.copy_(1.5 * noise / weight[0].numel() ** 0.5)
    return made


def inputs(draw: Draw) -> dict[str, torch.Tensor]:
    """A prompt of words around the image; the image's patches are feature rows of the draw's kind."""
    words = draw.numbers("words").integers(IMAGE + 1, VOCABULARY, BEFORE + AFTER)
    ids = np.concatenate([words[:BEFORE], np.full(draw.count, IMAGE), words[BEFORE:]])
    rows, columns = draw.grid
    patches = draw.rows("pixels", 3 * PATCH**2).reshape(rows, columns, 3, PATCH, PATCH)
    pixels = patches.transpose(2, 0, 3, 1, 4).reshape(1, 3, rows * PATCH, columns * PATCH)
    ids = torch.from_numpy(ids)[None]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.from_numpy(pixels).double(),
    }


def run_library(draw: Draw, case: Case) -> Told:
    """Prune the model with the library's method; a step a cut: what it leaves."""
    noted = Replay(methods.make(case.method, keep=draw.keep, **case.fields))
    net = model(draw.grid[0], draw.seed)
    with prune(net, noted), torch.no_grad():
        net(**inputs(draw))
    return told([choice.kept[0].tolist() for choice in noted.noted])


def told(kept: Sequence[list[int]], declared: str = "") -> Told:
    """An answer of several cuts."""
    cuts = {f"cut {number}": places for number, places in enumerate(kept, start=1)}
    return Told({**cuts, "kept": kept[-1]}, declared)


@dataclass
class Prompt:
    """The sequence on its way through the language model.

    Attributes
    ----------
    net : the model that it runs through.
    hidden : [S, W] what enters the next layer.
    columns : where each of these columns stood in the whole prompt; visual ones are BEFORE .. BEFORE + N - 1.
    renumbered : whether positions are counted anew after a cut.
    """

    net: nn.Module
    hidden: np.ndarray
    columns: np.ndarray
    count: int
    renumbered: bool

    @classmethod
    def of(cls, draw: Draw, renumbered: bool) -> Prompt:
        """The prompt of a draw as it enters layer 0."""
        net, given = model(draw.grid[0], draw.seed), inputs(draw)
        core = net.model
        with torch.no_grad():
            hidden = core.language_model.embed_tokens(given["input_ids"])[0].numpy().copy()
            picture = core.get_image_features(given["pixel_values"]).pooler_output[0].numpy()
        hidden[BEFORE : BEFORE + draw.count] = picture
        return cls(net, hidden, np.arange(len(hidden)), draw.count, renumbered)

    @property
    def visual(self) -> np.ndarray:
        """Which columns of the present sequence are visual, ascending."""
        return np.flatnonzero((self.columns >= BEFORE) & (self.columns < BEFORE + self.count))

    @property
    def words(self) -> np.ndarray:
        """Which columns of the present sequence are words after the image."""
        return np.flatnonzero(self.columns >= BEFORE + self.count)

    @property
    def positions(self) -> np.ndarray:
        """The position of each column of the present sequence."""
        return np.arange(len(self.columns)) if self.renumbered else self.columns

    @property
    def frequencies(self) -> np.ndarray:
        """Of the rotary embedding, [d/2]."""
        return self.net.model.language_model.rotary_emb.inv_freq.numpy()

    def weights(self, layer: int) -> Mapping[str, np.ndarray]:
        """A layer's weights by their names, as arrays."""
        block = self.net.model.language_model.layers[layer]
        return {name: weight.numpy() for name, weight in block.state_dict().items()}

    def normed(self, weight: np.ndarray) -> np.ndarray:
        """The present states after a root mean square norm."""
        return norm(self.hidden, weight)

    def last_norm(self) -> np.ndarray:
        """The present states after the language model's last norm."""
        return self.normed(self.net.model.language_model.norm.weight.numpy())

    def queries_and_keys(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        """What the layer would make of the present sequence, rotated: [H, S, d] and [G, S, d]."""
        own = self.weights(layer)
        states, width = self.normed(own["input_layernorm.weight"]), 2 * len(self.frequencies)
        found = []
        for name in ("self_attn.q_proj.weight", "self_attn.k_proj.weight"):
            split = (states @ own[name].T).reshape(len(states), -1, width).transpose(1, 0, 2)
            found.append(rotate(split, self.positions, self.frequencies))
        return found[0], found[1]

    def attention(self, layer: int) -> np.ndarray:
        """Weights of the layer on the present sequence, [H, S, S], causal."""
        query, key = self.queries_and_keys(layer)
        key = key.repeat(len(query) // len(key), 0)
        logits = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
        logits[:, ~np.tri(len(self.columns), dtype=bool)] = -np.inf
        return softmax(logits)

    def run(self, layer: int) -> np.ndarray:
        """Let the layer run on the present sequence; its attention, [H, S, S]."""
        own, weights = self.weights(layer), self.attention(layer)
        states = self.normed(own["input_layernorm.weight"])
        value = (states @ own["self_attn.v_proj.weight"].T).reshape(
            len(states), -1, 2 * len(self.frequencies)
        )
        value = value.transpose(1, 0, 2)
        value = value.repeat(len(weights) // len(value), 0)
        mixed = (weights @ value).transpose(1, 0, 2).reshape(len(states), -1)
        self.hidden = self.hidden + mixed @ own["self_attn.o_proj.weight"].T
        states = self.normed(own["post_attention_layernorm.weight"])
        gate = states @ own["mlp.gate_proj.weight"].T
        inner = gate / (1 + np.exp(-gate)) * (states @ own["mlp.up_proj.weight"].T)
        self.hidden = self.hidden + inner @ own["mlp.down_proj.weight"].T
        return weights

    def cut(self, stay: Sequence[int]) -> list[int]:
        """Leave only the ``stay`` among the visual columns of the present sequence; where they stand in the grid."""
        gone = np.setdiff1d(self.visual, stay)
        self.hidden, self.columns = np.delete(self.hidden, gone, 0), np.delete(self.columns, gone)
        return (self.columns[self.visual] - BEFORE).tolist()


def norm(states: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Each row over its root mean square, times ``weight``."""
    return states / np.sqrt((states**2).mean(-1, keepdims=True) + 1e-6) * weight


def rotate(vectors: np.ndarray, positions: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Rotary embedding: dimension i turns with dimension i + d/2. Angles are in single precision, as the model has them."""
    angles = positions[:, None].astype(np.float32) * frequencies
    cosine, sine = np.cos(angles).astype(np.float64), np.sin(angles).astype(np.float64)
    first, second = np.split(vectors, 2, -1)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)
