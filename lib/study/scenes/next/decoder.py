"""Training of projector and decoder at 24 x 24: questions about one picture packed behind its visual tokens.

As `lib.study.scenes.training.train_decoder`: each block (question, answer) sees the picture and itself alone and counts its positions as if
it stood alone, so training equals one question a prompt. Here each suite has its own number of blocks, and attention is
computed in two parts, the picture's own and the blocks', as most of the square of all pairs is masked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lib.models import embedded
from lib.models.architectures import Sizes
from lib.models.embedded import ASSISTANT, END, PAD, START, USER
from lib.study.scenes.layout import Scenes
from lib.study.scenes.next.words import SUITES, asked_of, benchmark
from lib.study.scenes.next.world import Layout, generate
from lib.study.scenes.questions import Question
from lib.study.scenes.training.batches import onto
from lib.study.scenes.training.loop import Half, fit, phase_at
from lib.study.scenes.training.train_decoder import Lesson
from lib.study.scenes.training.train_tower import tower_states

BLOCK = 12  # longest question, answer and end token
VALIDATED = 80  # validation pictures, one question of each suite a picture


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of the decoder's training; each step draws one of `layouts` by its share."""

    steps: int
    batch: int  # whole pictures; smaller ones come in larger batches of about as many tokens
    rate: float  # peak learning rate of AdamW; Muon's is `fitting.MUON` times as high
    layouts: tuple[tuple[float, Layout], ...]
    times: tuple[int, ...]  # questions a picture of each suite, in the order of SUITES
    alone: int = 2  # questions without the picture, so that a prompt without image is in range

    @property
    def blocks(self) -> int:
        """Questions that see the picture."""
        return sum(self.times)

    @property
    def asked(self) -> int:
        """Tokens behind the picture."""
        return BLOCK * (self.blocks + self.alone)


def write(ids: np.ndarray, labels: np.ndarray, question: Question, vocab: dict[str, int]) -> None:
    """Write a question and its answer into a block of ids `[BLOCK]` and labels (-100 where nothing is to be learned)."""
    ask = [*(vocab[word] for word in question.text.split()), ASSISTANT]
    line = [*ask, *(vocab[word] for word in question.answer.split()), END]
    ids[: len(line)] = line
    labels[len(ask) : len(line)] = line[len(ask) :]


def lesson(
    scenes: Scenes, vocab: dict[str, int], rng: np.random.Generator, phase: Phase, frame: Layout
) -> Lesson:
    """Place each picture in the frame and ask about it; blocks whose question a picture does not allow stay empty."""
    n, room = len(scenes.images), frame.grid[0] - scenes.layout.grid[0]
    corner = rng.integers(0, room + 1, (n, 2))
    ids = np.full((n, phase.blocks + phase.alone, BLOCK), PAD)
    labels = np.full_like(ids, -100)
    times = dict(zip(SUITES, phase.times, strict=True))
    for row in range(n):
        asked = asked_of(scenes, row, rng, times, tuple(corner[row]), frame)
        blind = [asked[index] for index in rng.integers(0, len(asked), phase.alone)]
        for block, question in [*enumerate(asked), *enumerate(blind, phase.blocks)]:
            write(ids[row, block], labels[row, block], question, vocab)
    ids, labels = ids.reshape(n, -1), labels.reshape(n, -1)
    row, column = np.nonzero(labels != -100)
    return Lesson(scenes.images, corner, ids, row, column, labels[row, column])


def draw_step(
    step: int, phases: Sequence[Phase], vocab: dict[str, int], seed: int, frame: Layout, stream: int = 1
) -> Lesson:
    """The lesson of a step, a function of seed, stream and step alone, so that a resumed run sees the same."""
    rng, phase = np.random.default_rng([seed, stream, step]), phase_at(phases, step)[0]
    shares = [share for share, _ in phase.layouts]
    layout = phase.layouts[rng.choice(len(shares), p=shares)][1]
    whole, here = (math.prod(one.grid) + phase.asked for one in (frame, layout))
    scenes = generate(rng, round(phase.batch * whole / here), layout)
    return lesson(scenes, vocab, rng, phase, frame)


@lru_cache(maxsize=16)  # sizes of pictures times phases; callers only read it
def packed(visual: int, blocks: int, alone: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Additive mask `[1,1,S,S]` and positions `[1,S]`: a block sees the picture and its own past.

    Blocks without the picture see `<s> USER:` alone; every second of them counts on from there, the others from where a
    picture would end, so that both numberings of a prompt without visual tokens are in range.
    """
    prefix = visual + 2  # <s> USER: and the picture
    count = torch.arange(BLOCK)
    starts = [2 if block >= blocks and block % 2 == 0 else prefix for block in range(blocks + alone)]
    position = torch.cat([torch.arange(prefix), *(start + count for start in starts)])
    owner = torch.cat(
        [torch.zeros(prefix, dtype=torch.long), 1 + torch.arange(blocks + alone).repeat_interleave(BLOCK)]
    )
    order = torch.arange(len(owner))
    picture, blind = (order >= 2) & (owner == 0), owner > blocks
    seen = (owner[None] == owner[:, None]) | (owner[None] == 0)
    seen &= ~(picture[None] & blind[:, None])
    seen &= order[None] <= order[:, None]
    return torch.where(seen, 0.0, -torch.inf)[None, None], position[None]


class two_parts(TorchFunctionMode):
    """Within the block attention under a mask `packed` is computed in two parts: the prefix, plainly causal, and the blocks.

    The result is the same; half of the pairs of a whole picture with two dozen blocks are not looked at.
    """

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is not functional.scaled_dot_product_attention or kwargs.get("attn_mask") is None:
            return func(*args, **kwargs)
        (query, key, value), mask, cut = args, kwargs["attn_mask"], self.prefix
        rest = {name: given for name, given in kwargs.items() if name not in ("attn_mask", "is_causal")}
        first = func(*(part[:, :, :cut] for part in args), is_causal=True, **rest)
        second = func(query[:, :, cut:], key, value, attn_mask=mask[:, :, cut:], **rest)
        return torch.cat([first, second], 2)


def hidden_states(model, features: torch.Tensor, ids: torch.Tensor, blocks: int, alone: int) -> torch.Tensor:
    """States `[B,2+n+S,D]` of the packed sequence: `<s> USER:`, visual features `[B,n,V]`, blocks `[B,S]`."""
    core, device = model.model, features.device
    mask, position = (part.to(device) for part in packed(features.shape[1], blocks, alone))
    words = core.language_model.embed_tokens
    start = words(torch.tensor([[START, USER]], device=device)).expand(len(ids), -1, -1)
    inputs = torch.cat([start, core.multi_modal_projector(features), words(ids)], 1)
    with two_parts(features.shape[1] + 2):
        return core.language_model(
            inputs_embeds=inputs, attention_mask=mask, position_ids=position, use_cache=False
        ).last_hidden_state


def decoder_loss(model, batch: Lesson, phase: Phase) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of the answers for one batch of pictures; again without gradient `[1]`."""
    device = model.lm_head.weight.device
    images, corner, ids, row, column, label = (onto(array, device) for array in batch)
    with torch.no_grad():
        features = tower_states(model.model.vision_tower, embedded.pixels(images), corner)[-2][:, 1:]
    hidden = hidden_states(model, features, ids, phase.blocks, phase.alone)
    told = hidden[:, features.shape[1] + 2 - 1 : -1]  # the state before each block token
    # The state before a block's first token belongs to another block, but a first token is never a label.
    loss = functional.cross_entropy(model.lm_head(told[row, column]), label)
    return loss, loss.detach()[None]


@torch.no_grad()
def accuracy(model, scenes: Scenes, asked: list[list[Question]], vocab: dict[str, int], blind: bool = False):
    """Share of right first answer words a suite, read from one packed pass (a quick check, not the study's evaluation)."""
    device = model.lm_head.weight.device
    right: dict[str, list[bool]] = {suite: [] for suite in SUITES}
    for first in range(0, len(asked), 20):
        some = asked[first : first + 20]
        ids = np.full((len(some), len(SUITES), BLOCK), PAD)
        last = np.zeros((len(some), len(SUITES)), int)
        for row, found in enumerate(some):
            for block, question in enumerate(found):
                line = [*(vocab[word] for word in question.text.split()), ASSISTANT]
                ids[row, block, : len(line)] = line
                last[row, block] = block * BLOCK + len(line) - 1
        images = embedded.pixels(onto(scenes.images[first : first + 20], device))
        features = tower_states(model.model.vision_tower, images)[-2][:, 1:]
        features = features[:, :0] if blind else features
        hidden = hidden_states(model, features, onto(ids, device).flatten(1), len(SUITES), 0)
        hidden = hidden[:, features.shape[1] + 2 :]
        place = onto(last, device)[..., None].expand(-1, -1, hidden.shape[-1])
        said = model.lm_head(hidden.gather(1, place)).argmax(-1).tolist()
        for found, words in zip(some, said, strict=True):
            for question, word in zip(found, words, strict=True):
                right[question.suite].append(word == vocab[question.answer])
    return {suite: float(np.mean(values)) for suite, values in right.items()}


def deepen(model, shallow) -> None:
    """Let `model` begin as the function of `shallow`, a whole number of times less deep: new layers between add nothing yet.

    Training by progressive stacking (Gong et al., ICML 2019), with new layers whose two output matrices are zero in the place
    of copies, so that nothing that was learned is disturbed.
    """
    layers, learned = model.model.language_model.layers, shallow.model.language_model.layers
    times, rest = divmod(len(layers), len(learned))
    if rest:
        raise ValueError(f"{len(layers)} layers are no multiple of {len(learned)}")
    own = {name: value for name, value in shallow.state_dict().items() if ".layers." not in name}
    model.load_state_dict(own, strict=False)
    for number, layer in enumerate(layers):
        if number % times == 0:
            layer.load_state_dict(learned[number // times].state_dict())
        else:
            nn.init.zeros_(layer.self_attn.o_proj.weight)
            nn.init.zeros_(layer.mlp.down_proj.weight)


def train_decoder(
    folder: Path,
    clip,
    vocab: dict[str, int],
    sizes: Sizes,
    phases: Sequence[Phase],
    seed: int = 0,
    *,
    name: str = "decoder",
    shallow=None,
    frame: Layout = Layout(),
    every: int = 10,
    points: int = 10,
    seconds: float = math.inf,
    within: Callable[[nn.Module], AbstractContextManager] = nullcontext,
    workers: int = 0,
    until: float = math.inf,
):
    """Train and return the model; `frame` is the layout of whole pictures, the rest as in `lib.study.scenes.training.loop.fit`.

    It begins as the less deep model `shallow`, if one is given; `name` is that of its files.

    `within(model)` is a context that holds during training, such as `half_linears`.
    """
    torch.manual_seed(seed)
    model = embedded.llava_model(sizes, clip, len(vocab))
    if shallow is not None:
        deepen(model, shallow)
    validation = benchmark("validation", VALIDATED, 0, frame)

    def check() -> dict[str, float]:
        right = accuracy(model, *validation, vocab)
        return {f"validation {suite}": round(share, 3) for suite, share in right.items()}

    half = Half(
        name=name,
        modules={"model": model},
        phases=phases,
        seed=seed,
        draw=partial(
            draw_step, phases=phases, vocab=vocab, seed=seed, frame=frame, stream=1 if shallow is None else 2
        ),
        loss=partial(decoder_loss, model),
        parts=("loss",),
        warm=100,
        floor=0.05,
        every=every,
        points=points,
        check=check,
        seconds=seconds,
    )
    with within(model):
        fit(folder, half, workers=workers, until=until)
    return model.eval()
