"""Training of the embedded model's CLIP: contrast of image and caption, with caption words beside it.

The tower learns from pictures and captions alone; evidence boxes never reach it. A word head reads the layer whose
features the language model gets; it is thrown away afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from lib.models import embedded
from lib.models.architectures import Sizes
from lib.models.embedded import END, PAD, START
from lib.study.scenes.layout import PATCH, Layout
from lib.study.scenes.questions import caption
from lib.study.scenes.render import generate
from lib.study.scenes.training.batches import onto
from lib.study.scenes.training.loop import Half, fit, phase_at


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of the curriculum: which layouts (with their share of the batch), how long, how fast."""

    steps: int
    batch: int  # a layout's share of 1 is this many pictures
    rate: float  # peak learning rate of AdamW; Muon's is `fitting.MUON` times as high
    layouts: tuple[tuple[float, Layout], ...]
    grey: float = 0.4  # share of the batches in greyscale with the colour words dropped
    seen: float = 0.25  # share of the patches that the word head sees, so that each has to know its object
    word_weight: float = 0.3


def curriculum(scale: float = 1.0) -> tuple[Phase, ...]:
    """Single items, then four cells, then whole scenes, then whole scenes and single items side by side.

    Small pictures cost a tenth, so shape is learned there. Nearly every place is named in the caption of a whole scene, so
    those tell the tower nothing about places and it forgets them: hence the last phase.
    """
    one = ((0.60, Layout(cells=1, objects=1, cards=0, badges=0, shapes=6)), (0.34, Layout(cells=1, objects=0, cards=1, badges=0)),
           (0.06, Layout(cells=1, objects=0, cards=0, badges=1)))  # fmt: skip
    four = (
        (0.5, Layout(cells=2, objects=2, cards=1, badges=0)),
        (0.5, Layout(cells=2, objects=1, cards=1, badges=1)),
    )
    steps = [max(1, round(scale * n)) for n in (700, 700, 800, 250)]
    return (
        Phase(steps=steps[0], batch=256, rate=1.5e-3, layouts=one),
        Phase(steps=steps[1], batch=128, rate=1e-3, layouts=four),
        Phase(steps=steps[2], batch=64, rate=8e-4, layouts=((1.0, Layout()),)),
        Phase(
            steps=steps[3],
            batch=64,
            rate=6e-4,
            layouts=((1.0, Layout()), *((1.5 * share, item) for share, item in one)),
        ),
    )


class WordHead(nn.Module):
    """Which words does the caption hold? Told from patch features `[B,n,D]`; used in training only.

    Each patch votes for each word and the votes are pooled by log-sum-exp, so one patch that knows is enough. Words are
    the caption's own, as in Joulin et al. (arXiv 1511.02251).
    """

    def __init__(self, vocab: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.votes = nn.Linear(width, vocab)
        nn.init.constant_(self.votes.bias, -3.0)

    def forward(self, ids: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Binary cross-entropy summed over the vocabulary, mean over pictures; `ids [B,T]` padded."""
        said = self.votes(self.norm(features)).logsumexp(1)
        there = torch.zeros_like(said).scatter_(1, ids, 1.0)
        loss = nn.functional.binary_cross_entropy_with_logits(said, there, reduction="none")
        return loss.sum(1).mean()


def tower_states(vision, pixels: torch.Tensor, corner: torch.Tensor | None = None) -> list[torch.Tensor]:
    """Hidden states before each layer and after the last, `[B,1+n,D]` each.

    `corner [B,2]` places a picture smaller than the tower's on its position table (row, column of its first patch).
    """
    side = vision.config.image_size // vision.config.patch_size
    patches = vision.embeddings.patch_embedding(pixels).permute(0, 2, 3, 1)
    rows, columns = patches.shape[1:3]
    if corner is None:
        corner = torch.zeros(len(pixels), 2, dtype=torch.long, device=pixels.device)
    row = (corner[:, :1] + torch.arange(rows, device=pixels.device))[:, :, None]
    column = (corner[:, 1:] + torch.arange(columns, device=pixels.device))[:, None, :]
    table = vision.embeddings.position_embedding.weight
    patches = patches.flatten(1, 2) + table[1 + (row * side + column).flatten(1)]
    start = (vision.embeddings.class_embedding + table[0]).expand(len(pixels), 1, -1)
    states = [vision.pre_layrnorm(torch.cat([start, patches], 1))]
    for layer in vision.encoder.layers:
        states.append(layer(states[-1], attention_mask=None))
    return states


def encode(texts: list[str], vocab: dict[str, int]) -> torch.Tensor:
    """Token ids `[B,T]` with start and end, right padded."""
    rows = [[START, *(vocab[word] for word in text.split()), END] for text in texts]
    out = torch.full((len(rows), max(map(len, rows))), PAD)
    for index, row in enumerate(rows):
        out[index, : len(row)] = torch.tensor(row)
    return out


def caption_codes(captions: list[str]) -> np.ndarray:
    """A number `[B]` for each caption, the same for equal ones."""
    names = {name: index for index, name in enumerate(dict.fromkeys(captions))}
    return np.array([names[name] for name in captions])


def contrast(clip, image: torch.Tensor, text: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE over `[B,E]` embeddings; captions of other pictures with an equal `code [B]` are no negatives."""
    image = nn.functional.normalize(image, dim=-1)
    text = nn.functional.normalize(text, dim=-1)
    logits = clip.logit_scale.clamp(max=math.log(100.0)).exp() * image @ text.T
    twin = (code[:, None] == code[None]) & ~torch.eye(len(code), dtype=torch.bool, device=code.device)
    logits = logits.masked_fill(twin, -1e4)
    label = torch.arange(len(code), device=code.device)
    return 0.5 * (nn.functional.cross_entropy(logits, label) + nn.functional.cross_entropy(logits.T, label))


class World(NamedTuple):
    """What draws pictures and what tells of them."""

    generate: Callable = generate
    caption: Callable = caption


class Group(NamedTuple):
    """Pictures of one size with all that a step needs of them, as arrays of the host."""

    images: np.ndarray  # [B,P,P,3] uint8
    short: np.ndarray  # [B,T] token ids of the captions for the contrast
    codes: np.ndarray  # [B], see `caption_codes`
    full: np.ndarray  # [B,F] token ids of the captions of everything, for the word head
    corner: np.ndarray  # [B,2] row and column of the first patch in the frame
    seen: np.ndarray  # [B,k] patches that the word head sees


def draw_batch(
    rng: np.random.Generator,
    phase: Phase,
    vocab: dict[str, int],
    frame: Layout = Layout(),
    world: World = World(),
) -> tuple[bool, list[Group]]:
    """One batch: whether it is in colour, and its pictures by size.

    A picture smaller than the `frame` lies anywhere in it; its captions name places of the frame.
    """
    colored, parts = rng.random() >= phase.grey, []
    for pixels in dict.fromkeys(layout.pixels for _, layout in phase.layouts):
        images, short, full, corners = [], [], [], []
        for share, layout in phase.layouts:
            if layout.pixels != pixels:
                continue
            scenes = world.generate(rng, max(1, round(share * phase.batch)), layout)
            images.append(scenes.images)
            room = frame.grid[0] - layout.grid[0]
            corners.append(rng.integers(0, room + 1, (len(scenes.images), 2)))
            for row, corner in enumerate(corners[-1]):
                said = {"colored": colored, "corner": corner, "frame": frame}
                short.append(world.caption(scenes, row, rng, **said))
                full.append(world.caption(scenes, row, rng, everything=True, **said))
        parts.append((np.concatenate(images), short, full, np.concatenate(corners)))
    groups = []
    for images, short, full, corner in parts:
        patches = (images.shape[1] // PATCH) ** 2
        ids = encode(short, vocab).numpy(), encode(full, vocab).numpy()
        seen = some_patches(len(images), patches, phase.seen, rng)
        groups.append(Group(images, ids[0], caption_codes(short), ids[1], corner, seen))
    return colored, groups


def some_patches(pictures: int, patches: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """A random share of the patches of each picture, drawn without a look at it: their numbers `[B,k]`."""
    keep = max(1, round(share * patches))
    return rng.random((pictures, patches)).argsort(1)[:, :keep]


def draw_step(step: int, phases, vocab: dict[str, int], seed: int, frame: Layout, world: World = World()):
    """The batch of a step, a function of seed and step alone, so that a resumed run sees the same."""
    return draw_batch(np.random.default_rng([seed, step]), phase_at(phases, step)[0], vocab, frame, world)


def tower_loss(
    clip, head, batch: tuple[bool, list[Group]], phase: Phase
) -> tuple[torch.Tensor, torch.Tensor]:
    """One batch: total loss, and contrast and words without gradient `[2]`, means over the groups of pictures."""
    colored, groups = batch
    device = clip.logit_scale.device
    matched, told = torch.zeros((), device=device), torch.zeros((), device=device)
    for group in groups:
        images, ids, code, full, corner, seen = (onto(array, device) for array in group)
        pixels = embedded.pixels(images)
        if not colored:
            pixels = pixels.mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()
        states = tower_states(clip.vision_model, pixels, corner)
        image = clip.visual_projection(clip.vision_model.post_layernorm(states[-1][:, 0]))
        text = clip.text_projection(clip.text_model(ids, attention_mask=(ids != PAD).long()).pooler_output)
        matched = matched + contrast(clip, image, text, code) / len(groups)
        features = states[-2][:, 1:]
        features = features.gather(1, seen[..., None].expand(-1, -1, features.shape[2]))
        told = told + head(full, features) / len(groups)
    return matched + phase.word_weight * told, torch.stack([matched.detach(), told.detach()])


def train_tower(
    folder: Path,
    vocab: dict[str, int],
    sizes: Sizes,
    phases: Sequence[Phase],
    seed: int = 0,
    every: int = 100,
    *,
    frame: Layout = Layout(),
    world: World = World(),
    seconds: float = math.inf,
    within: Callable[[nn.Module], AbstractContextManager] = nullcontext,
    device: str = "cpu",
    workers: int = 0,
    until: float = math.inf,
):
    """Train and return the CLIP; `frame` is the layout of whole pictures of the `world`, the rest as in `loop.fit`.

    `within(clip)` is a context that holds during training, such as `half_linears`.
    """
    torch.manual_seed(seed)
    clip, head = embedded.clip_model(sizes, len(vocab)), WordHead(len(vocab), sizes.vision_width)
    embedded.start_local(clip.vision_model)
    clip, head = clip.to(device), head.to(device)
    half = Half(
        name="tower",
        modules={"clip": clip, "head": head},
        phases=phases,
        seed=seed,
        draw=partial(draw_step, phases=phases, vocab=vocab, seed=seed, frame=frame, world=world),
        loss=partial(tower_loss, clip, head),
        parts=("contrast", "words"),
        warm=50,
        floor=0.1,
        every=every,
        points=5,
        seconds=seconds,
    )
    with within(clip):
        fit(folder, half, workers=workers, until=until)
    return clip.eval()
