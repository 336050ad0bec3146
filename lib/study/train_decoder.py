"""Training of the embedded model's projector and decoder on questions; the tower is frozen.

Many questions about one picture share its visual tokens in one sequence: each block (question, answer) sees the picture
and itself alone and counts its positions as if it stood alone, so training equals one question a prompt.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from lib.models import embedded
from lib.models.embedded import ASSISTANT, END, PAD, START, USER, Sizes
from lib.study.questions import SUITES, benchmark, caption, questions
from lib.study.scenes import PATCH, Layout, Scenes, generate
from lib.study.train_tower import tower_states

BLOCK = 12  # longest question, answer and end token
STORY = 20  # a caption block
CAPTION_PROMPT = "what is there ?"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of the decoder's training."""

    steps: int
    batch: int  # pictures; each carries `blocks` questions
    rate: float  # peak learning rate
    layout: Layout = Layout()
    per_suite: int = 3
    stories: int = 1  # captions a picture, learned as answers to "what is there ?" (LLaVA's first stage)


def curriculum(scale: float = 1.0) -> tuple[Phase, ...]:
    """Quarter pictures first (their sequences are short), then whole scenes."""
    quarter = Layout(cells=2, objects=3, cards=1, badges=0)
    steps = [max(1, round(scale * n)) for n in (200, 800)]
    return (
        Phase(steps=steps[0], batch=32, rate=1.5e-3, layout=quarter, per_suite=2),
        Phase(steps=steps[1], batch=16, rate=1e-3),
    )


def blocks(per_suite: int) -> int:
    """Questions a picture: `per_suite` of exists, attribute and where, one of count, read and scene."""
    return 3 * per_suite + 3


def pack(scenes: Scenes, vocab: dict[str, int], rng: np.random.Generator, phase: Phase):
    """Token ids `[B, blocks*BLOCK + stories*STORY]` and labels (-100 where nothing is to be learned)."""
    width = blocks(phase.per_suite) * BLOCK + phase.stories * STORY
    ids = np.full((len(scenes.images), width), PAD)
    labels = np.full_like(ids, -100)

    def write(row: int, start: int, room: int, question: str, answer: str) -> None:
        ask = [vocab[word] for word in question.split()] + [ASSISTANT]
        reply = [*(vocab[word] for word in answer.split()), END]
        line = (ask + reply)[:room]
        ids[row, start : start + len(line)] = line
        labels[row, start + len(ask) : start + len(line)] = line[len(ask) :]

    whole = phase.layout.cells == Layout().cells
    for row in range(len(scenes.images)):
        asked = questions(scenes, row, rng, phase.per_suite)
        asked = [q for q in asked if whole or q.suite != "where"]  # a quarter picture has no place of its own
        for block, question in enumerate(asked):
            write(row, block * BLOCK, BLOCK, question.text, question.answer)
        for story in range(phase.stories):
            start = blocks(phase.per_suite) * BLOCK + story * STORY
            write(row, start, STORY, CAPTION_PROMPT, caption(scenes, row, rng, everything=True))
    return torch.from_numpy(ids), torch.from_numpy(labels)


def packed_mask(visual: int, phase: Phase) -> tuple[torch.Tensor, torch.Tensor]:
    """Boolean mask `[1,1,S,S]` and positions `[1,S]`: a block sees the picture and its own past."""
    prefix = visual + 2  # <s> USER: and the picture
    lengths = [BLOCK] * blocks(phase.per_suite) + [STORY] * phase.stories
    owner = torch.cat([torch.zeros(prefix, dtype=torch.long)] + [
        torch.full((length,), 1 + index) for index, length in enumerate(lengths)
    ])  # fmt: skip
    position = torch.cat([torch.arange(prefix)] + [prefix + torch.arange(length) for length in lengths])
    order = torch.arange(len(owner))
    seen = (owner[None] == owner[:, None]) | (owner[None] == 0)
    return (seen & (order[None] <= order[:, None]))[None, None], position[None]


def decoder_loss(model, scenes: Scenes, vocab, rng, phase: Phase, mask: torch.Tensor, position: torch.Tensor):
    """Cross-entropy of answers and captions for one batch of pictures."""
    core = model.model
    side = core.config.vision_config.image_size // PATCH
    room = side - phase.layout.pixels // PATCH
    corner = torch.from_numpy(rng.integers(0, room + 1, (len(scenes.images), 2)))
    with torch.no_grad():
        features = tower_states(core.vision_tower, embedded.pixels(scenes.images), corner)[-2][:, 1:]
    ids, labels = pack(scenes, vocab, rng, phase)
    words = core.language_model.embed_tokens
    start = words(torch.tensor([[START, USER]])).expand(len(ids), -1, -1)
    inputs = torch.cat([start, core.multi_modal_projector(features), words(ids)], 1)
    hidden = core.language_model(
        inputs_embeds=inputs, attention_mask=mask, position_ids=position, use_cache=False
    ).last_hidden_state
    told = hidden[:, features.shape[1] + 2 - 1 : -1]  # the state before each block token
    wanted = labels != -100
    # The state before a block's first token belongs to another block, but a first token is never a label.
    return nn.functional.cross_entropy(model.lm_head(told[wanted]), labels[wanted])


@torch.no_grad()
def accuracy(model, scenes: Scenes, asked, vocab: dict[str, int], blind: bool = False) -> dict[str, float]:
    """Share of right first answer words a suite, read from one packed pass (a quick check, not the study's evaluation)."""
    core = model.model
    phase = Phase(steps=1, batch=1, rate=1.0, per_suite=1, stories=0)
    right: dict[str, list[bool]] = {suite: [] for suite in SUITES}
    for first in range(0, len(asked), 50):
        some = asked[first : first + 50]
        ids = torch.full((len(some), len(SUITES), BLOCK), PAD)
        last = torch.zeros(len(some), len(SUITES), dtype=torch.long)
        for row, found in enumerate(some):
            for block, question in enumerate(found):
                line = [vocab[word] for word in question.text.split()] + [ASSISTANT]
                ids[row, block, : len(line)] = torch.tensor(line)
                last[row, block] = block * BLOCK + len(line) - 1
        features = tower_states(core.vision_tower, embedded.pixels(scenes.images[first : first + 50]))[-2][
            :, 1:
        ]
        if blind:
            features = features[:, :0]
        words = core.language_model.embed_tokens
        start = words(torch.tensor([[START, USER]])).expand(len(some), -1, -1)
        inputs = torch.cat([start, core.multi_modal_projector(features), words(ids.flatten(1))], 1)
        mask, position = packed_mask(features.shape[1], phase)
        hidden = core.language_model(
            inputs_embeds=inputs, attention_mask=mask, position_ids=position, use_cache=False
        ).last_hidden_state[:, features.shape[1] + 2 :]
        said = model.lm_head(hidden.gather(1, last[..., None].expand(-1, -1, hidden.shape[-1]))).argmax(-1)
        for row, found in enumerate(some):
            for block, question in enumerate(found):
                right[question.suite].append(int(said[row, block]) == vocab[question.answer])
    return {suite: float(np.mean(values)) for suite, values in right.items()}


def train_decoder(
    folder: Path, clip, vocab: dict[str, int], sizes: Sizes, phases=None, seed: int = 0, every: int = 50
):
    """Train and return the model; resumes from `folder/decoder.pt`, appends its curve to `decoder.jsonl`."""
    phases = phases or curriculum()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = embedded.llava_model(sizes, clip, len(vocab))
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.01)
    total, step, file = sum(phase.steps for phase in phases), 0, folder / "decoder.pt"
    if file.exists():
        state = torch.load(file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    validation = benchmark("validation", 100, seed=0)
    bar, started, recent = tqdm(total=total, initial=step, desc="decoder", mininterval=5), time.time(), []
    while step < total:
        phase, inside = _phase_at(phases, step)
        rate = phase.rate * min(1.0, (inside + 1) / 100) * (0.05 + 0.95 * _cosine(inside / phase.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng([seed, 1, step])
        scenes = generate(rng, phase.batch, phase.layout)
        mask, position = packed_mask((phase.layout.pixels // PATCH) ** 2, phase)
        loss = decoder_loss(model, scenes, vocab, rng, phase, mask, position)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        recent.append(loss.item())
        bar.update()
        if step % every == 0 or step == total:
            line = {"step": step, "loss": round(float(np.mean(recent)), 4), "rate": rate}
            line["seconds"] = round(time.time() - started, 1)
            if step % (4 * every) == 0 or step == total:
                line |= {
                    f"validation {k}": round(v, 3) for k, v in accuracy(model, *validation, vocab).items()
                }
                torch.save(
                    {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, file
                )
            bar.set_postfix(loss=line["loss"])
            with (folder / "decoder.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            recent = []
    bar.close()
    (folder / "decoder.json").write_text(
        json.dumps({"seed": seed, "phases": [asdict(phase) for phase in phases]}, indent=1)
    )
    return model.eval()


def _phase_at(phases, step: int):
    for phase in phases:
        if step < phase.steps:
            return phase, step
        step -= phase.steps
    raise ValueError(f"step {step} lies behind the last phase")


def _cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))
