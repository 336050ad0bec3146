"""Training of the embedded model's projector and decoder on questions; the tower is frozen.

Many questions about one picture share its visual tokens in one sequence: each block (question, answer) sees the picture
and itself alone and counts its positions as if it stood alone, so training equals one question a prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from lib.models import embedded
from lib.models.architectures import Sizes
from lib.models.embedded import ASSISTANT, END, PAD, START, USER
from lib.study.scenes.layout import Layout, Scenes
from lib.study.scenes.questions import SUITES, benchmark, caption, questions
from lib.study.scenes.render import generate
from lib.study.scenes.training.batches import onto
from lib.study.scenes.training.loop import Half, fit, phase_at
from lib.study.scenes.training.train_tower import tower_states

BLOCK = 10  # longest question, answer and end token
STORY = 20  # a caption block
CAPTION_PROMPT = "what is there ?"
VALIDATED = 100  # validation pictures, one question of each suite a picture
HALF, NINE = Layout(cells=2, objects=3, cards=1, badges=0), Layout(cells=3, objects=5, cards=1, badges=1)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of the decoder's training; each step draws one of `layouts` by its share."""

    steps: int
    batch: int  # whole pictures; smaller ones come in larger batches of about as many tokens
    rate: float  # peak learning rate of AdamW; Muon's is `fitting.MUON` times as high
    layouts: tuple[tuple[float, Layout], ...] = ((1.0, Layout()),)
    per_suite: int = 4
    counts: int = 4  # questions that count, the slowest to be learned
    stories: int = 0  # captions a picture, learned as answers to "what is there ?" (LLaVA's first stage)
    alone: int = 2  # questions without the picture, so that a prompt without image is in range


def curriculum(scale: float = 1.0) -> tuple[Phase, ...]:
    """Small pictures first, then mostly whole scenes; prompts of 36, 81 and 144 visual tokens stay in range."""
    mixed = ((0.15, HALF), (0.20, NINE), (0.65, Layout()))
    steps = [max(1, round(scale * n)) for n in (350, 650, 1200)]
    return (
        Phase(steps=steps[0], batch=16, rate=1.5e-3, layouts=((0.7, HALF), (0.3, NINE)), stories=1),
        Phase(steps=steps[1], batch=16, rate=1e-3, layouts=mixed),
        Phase(steps=steps[2], batch=16, rate=1e-3, layouts=mixed, per_suite=2, counts=8),
    )


def blocks(phase: Phase) -> int:
    """Questions that see the picture: `per_suite` of exists, attribute and where, `counts` of count, one of read and scene."""
    return 3 * phase.per_suite + phase.counts + 2


def pack(
    scenes: Scenes,
    vocab: dict[str, int],
    rng: np.random.Generator,
    phase: Phase,
    corner: np.ndarray,
    frame: Layout = Layout(),
):
    """Token ids `[B,(blocks+alone)*BLOCK + stories*STORY]` and labels (-100 where nothing is to be learned)."""
    asking = blocks(phase) + phase.alone
    width = asking * BLOCK + phase.stories * STORY
    ids = np.full((len(scenes.images), width), PAD)
    labels = np.full_like(ids, -100)

    def write(row: int, start: int, room: int, question: str, answer: str) -> None:
        ask = [vocab[word] for word in question.split()] + [ASSISTANT]
        reply = [*(vocab[word] for word in answer.split()), END]
        line = (ask + reply)[:room]
        ids[row, start : start + len(line)] = line
        labels[row, start + len(ask) : start + len(line)] = line[len(ask) :]

    for row in range(len(scenes.images)):
        asked = questions(scenes, row, rng, phase.per_suite, corner[row], phase.counts, frame)
        places = [*range(len(asked)), *range(blocks(phase), asking)]
        asked += [asked[index] for index in rng.integers(0, len(asked), phase.alone)]
        for block, question in zip(places, asked, strict=True):
            write(row, block * BLOCK, BLOCK, question.text, question.answer)
        for story in range(phase.stories):
            text = caption(scenes, row, rng, everything=True, corner=corner[row], frame=frame)
            write(row, asking * BLOCK + story * STORY, STORY, CAPTION_PROMPT, text)
    return torch.from_numpy(ids), torch.from_numpy(labels)


@lru_cache(maxsize=16)  # sizes of pictures times phases; callers only read it
def packed_mask(visual: int, phase: Phase) -> tuple[torch.Tensor, torch.Tensor]:
    """Boolean mask `[1,1,S,S]` and positions `[1,S]`: a block sees the picture and its own past.

    Blocks without the picture see `<s> USER:` alone; every second of them counts on from there, the others from where a
    picture would end, so that both numberings of a prompt without visual tokens are in range.
    """
    prefix = visual + 2  # <s> USER: and the picture
    lengths = [BLOCK] * (blocks(phase) + phase.alone) + [STORY] * phase.stories
    alone = range(blocks(phase), blocks(phase) + phase.alone)
    owner = [torch.zeros(prefix, dtype=torch.long)]
    position = [torch.arange(prefix)]
    for index, length in enumerate(lengths):
        start = 2 if index in alone and index % 2 == 0 else prefix
        owner.append(torch.full((length,), 1 + index))
        position.append(start + torch.arange(length))
    owner, position = torch.cat(owner), torch.cat(position)
    order = torch.arange(len(owner))
    picture = (order >= 2) & (owner == 0)
    blind = torch.isin(owner, torch.tensor([1 + index for index in alone]))
    seen = (owner[None] == owner[:, None]) | (owner[None] == 0)
    seen &= ~(picture[None] & blind[:, None])
    return (seen & (order[None] <= order[:, None]))[None, None], position[None]


def draw_scenes(rng: np.random.Generator, phase: Phase, frame: Layout = Layout()) -> Scenes:
    """Draw the scenes of one step: one layout, about as many tokens whatever its size."""
    shares = [share for share, _ in phase.layouts]
    layout = phase.layouts[rng.choice(len(shares), p=shares)][1]
    asked = BLOCK * (blocks(phase) + phase.alone) + STORY * phase.stories
    whole, here = (math.prod(one.grid) + asked for one in (frame, layout))
    return generate(rng, round(phase.batch * whole / here), layout)


class Lesson(NamedTuple):
    """Pictures and questions of one step, as arrays of the host."""

    images: np.ndarray  # [B,P,P,3] uint8
    corner: np.ndarray  # [B,2] row and column of the first patch in the frame
    ids: np.ndarray  # [B,S] token ids
    row: np.ndarray  # [L] and
    column: np.ndarray  # [L] where a token is to be learned
    label: np.ndarray  # [L] which


def lesson(
    scenes: Scenes, vocab: dict[str, int], rng: np.random.Generator, phase: Phase, frame: Layout = Layout()
) -> Lesson:
    """Place each picture in the frame and ask about it."""
    room = frame.grid[0] - scenes.layout.grid[0]
    corner = rng.integers(0, room + 1, (len(scenes.images), 2))
    ids, labels = (part.numpy() for part in pack(scenes, vocab, rng, phase, corner, frame))
    row, column = np.nonzero(labels != -100)
    return Lesson(scenes.images, corner, ids, row, column, labels[row, column])


def draw_step(step: int, phases, vocab: dict[str, int], seed: int, frame: Layout) -> Lesson:
    """The lesson of a step, a function of seed and step alone, so that a resumed run sees the same."""
    rng, phase = np.random.default_rng([seed, 1, step]), phase_at(phases, step)[0]
    return lesson(draw_scenes(rng, phase, frame), vocab, rng, phase, frame)


def hidden_states(model, features: torch.Tensor, ids: torch.Tensor, phase: Phase) -> torch.Tensor:
    """States `[B,2+n+S,D]` of the packed sequence: `<s> USER:`, visual features `[B,n,V]`, blocks `[B,S]`."""
    core, device = model.model, features.device
    mask, position = (part.to(device, non_blocking=True) for part in packed_mask(features.shape[1], phase))
    words = core.language_model.embed_tokens
    start = words(torch.tensor([[START, USER]]).to(device, non_blocking=True)).expand(len(ids), -1, -1)
    inputs = torch.cat([start, core.multi_modal_projector(features), words(ids)], 1)
    return core.language_model(
        inputs_embeds=inputs, attention_mask=mask, position_ids=position, use_cache=False
    ).last_hidden_state


def decoder_loss(model, batch: Lesson, phase: Phase) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of answers and captions for one batch of pictures; again without gradient `[1]`."""
    device = model.lm_head.weight.device
    images, corner, ids, row, column, label = (onto(array, device) for array in batch)
    with torch.no_grad():
        seen = tower_states(model.model.vision_tower, embedded.pixels(images), corner)
    features = seen[-2][:, 1:]
    hidden = hidden_states(model, features, ids, phase)
    told = hidden[:, features.shape[1] + 2 - 1 : -1]  # the state before each block token
    # The state before a block's first token belongs to another block, but a first token is never a label.
    loss = nn.functional.cross_entropy(model.lm_head(told[row, column]), label)
    return loss, loss.detach()[None]


@torch.no_grad()
def accuracy(model, scenes: Scenes, asked, vocab: dict[str, int], blind: bool = False) -> dict[str, float]:
    """Share of right first answer words a suite, read from one packed pass (a quick check, not the study's evaluation)."""
    device = model.lm_head.weight.device
    phase = Phase(steps=1, batch=1, rate=1.0, per_suite=1, counts=1, alone=0)
    right: dict[str, list[bool]] = {suite: [] for suite in SUITES}
    for first in range(0, len(asked), 50):
        some = asked[first : first + 50]
        ids = np.full((len(some), blocks(phase), BLOCK), PAD)
        last = np.zeros((len(some), len(SUITES)), int)
        for row, found in enumerate(some):
            for block, question in enumerate(found):
                line = [vocab[word] for word in question.text.split()] + [ASSISTANT]
                ids[row, block, : len(line)] = line
                last[row, block] = block * BLOCK + len(line) - 1
        images = embedded.pixels(onto(scenes.images[first : first + 50], device))
        features = tower_states(model.model.vision_tower, images)[-2][:, 1:]
        if blind:
            features = features[:, :0]
        hidden = hidden_states(model, features, onto(ids, device).flatten(1), phase)
        hidden = hidden[:, features.shape[1] + 2 :]
        place = onto(last, device)[..., None].expand(-1, -1, hidden.shape[-1])
        said = model.lm_head(hidden.gather(1, place)).argmax(-1).tolist()
        for row, found in enumerate(some):
            for block, question in enumerate(found):
                right[question.suite].append(said[row][block] == vocab[question.answer])
    return {suite: float(np.mean(values)) for suite, values in right.items()}


def train_decoder(
    folder: Path,
    clip,
    vocab: dict[str, int],
    sizes: Sizes,
    phases: Sequence[Phase],
    seed: int = 0,
    every: int = 50,
    *,
    frame: Layout = Layout(),
    device: str = "cpu",
    workers: int = 0,
    until: float = math.inf,
):
    """Train and return the model; `frame` is the layout of whole pictures, the rest as in `lib.study.scenes.training.loop.fit`."""
    torch.manual_seed(seed)
    model = embedded.llava_model(sizes, clip, len(vocab)).to(device)
    validation = benchmark("validation", VALIDATED, seed=0, layout=frame)

    def check() -> dict[str, float]:
        right = accuracy(model, *validation, vocab)
        return {f"validation {suite}": round(share, 3) for suite, share in right.items()}

    half = Half(
        name="decoder",
        modules={"model": model},
        phases=phases,
        seed=seed,
        draw=partial(draw_step, phases=phases, vocab=vocab, seed=seed, frame=frame),
        loss=partial(decoder_loss, model),
        parts=("loss",),
        warm=100,
        floor=0.05,
        every=every,
        points=4,
        check=check,
    )
    fit(folder, half, workers=workers, until=until)
    return model.eval()
