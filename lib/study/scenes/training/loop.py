"""One training loop for both halves of the embedded model: steps, curve, checkpoints, deadline.

What is learned is a function of seed and step alone, so a run that was stopped ends as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from tqdm.auto import tqdm

from lib.files import whole
from lib.study.scenes.training.batches import Paused, drawn
from lib.study.scenes.training.muon import Muon

MUON = 4.0  # learning rate of the matrices over that of the rest; 2 was slower over the first hundred steps


class Stretch(Protocol):
    """What the loop has to know of a phase of a curriculum."""

    steps: int
    rate: float  # peak learning rate of AdamW; Muon's is MUON times as high


@dataclass(frozen=True, kw_only=True)
class Half:
    """What one half of the training, tower or decoder, has of its own."""

    name: str  # of its files and of the progress bar
    modules: Mapping[str, nn.Module]  # trained and kept, by their names in a checkpoint
    phases: Sequence[Stretch]
    seed: int  # of weights and batches, told in the plan
    draw: Callable[[int], Any]  # a batch of host arrays, a function of the step alone
    loss: Callable[..., tuple[torch.Tensor, torch.Tensor]]  # (batch, phase) to loss and detached parts [k]
    parts: tuple[str, ...]  # names of the k parts in the curve
    warm: int  # steps in which the rate rises from 0 at the start of a phase
    floor: float  # share of the peak rate that is left at the end of a phase
    every: int  # steps between two points of the curve
    points: int  # points of the curve between two checkpoints, if `seconds` do not ask for more
    check: Callable[[], dict[str, float]] = dict  # further values of every `points`-th point of the curve
    seconds: float = math.inf  # between two checkpoints at most, so that little is lost where steps are slow


def fit(folder: Path, half: Half, *, workers: int = 0, until: float = math.inf) -> None:
    """Train the modules of `half` in place on the device where they are, from the checkpoint in `folder` if there is one.

    Writes `NAME.pt` (checkpoint), `NAME.jsonl` (curve) and, when all is done, `NAME.json` (seed and phases).

    Parameters
    ----------
    workers : processes that draw batches ahead.
    until : reading of `time.monotonic` after which no further step is begun; each call does at least one.

    Raises
    ------
    Paused
        When `until` came first; the checkpoint is saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"{half.name}.pt"
    modules, total = half.modules, sum(phase.steps for phase in half.phases)
    parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    optimizers = split_optimizers(*modules.values())
    kept = read_checkpoint(checkpoint, modules, optimizers)
    batches, started = drawn(half.draw, range(kept.step, total), workers), time.time()
    saved = time.monotonic()
    recent = [losses.to(parameters[0].device) for losses in kept.recent]
    with tqdm(total=total, initial=kept.step, desc=half.name, mininterval=5) as bar:
        for step, batch in enumerate(batches, kept.step + 1):
            phase, inside = phase_at(half.phases, step - 1)
            rise, fall = min(1.0, (inside + 1) / half.warm), cosine_fall(inside / phase.steps)
            rate = phase.rate * rise * (half.floor + (1 - half.floor) * fall)
            loss, parts = half.loss(batch, phase)
            take_step(loss, parameters, optimizers, rate)
            bar.update()
            recent.append(parts)  # read where a point is logged: reading waits for a GPU
            now, seconds = time.monotonic(), kept.seconds + time.time() - started
            late = now >= until
            deep = step % (half.every * half.points) == 0 or step == total
            if step % half.every == 0 or step == total:
                mean = {name: round(value, 4) for name, value in zip(half.parts, means(recent), strict=True)}
                bar.set_postfix(mean)
                point = {"step": step, **mean, "rate": rate, **(half.check() if deep else {})}
                log_line(folder / f"{half.name}.jsonl", point, seconds)
                recent = []
            if deep or late or now - saved >= half.seconds:
                saved = now
                write_checkpoint(checkpoint, modules, optimizers, Kept(step, seconds, recent))
            if late and step < total:
                raise Paused(half.name, step, total)
    write_plan(folder / f"{half.name}.json", half.seed, half.phases)


def split_optimizers(*modules: nn.Module) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the matrices inside layers, AdamW for embeddings, heads, gains and biases."""
    named = [pair for module in modules for pair in module.named_parameters() if pair[1].requires_grad]
    inside = [p for name, p in named if p.ndim == 2 and ".layers." in name]
    rest = [p for name, p in named if not (p.ndim == 2 and ".layers." in name)]
    return Muon(inside), torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0)


@dataclass(frozen=True)
class Kept:
    """What a checkpoint holds beside weights and optimizers."""

    step: int = 0  # steps done
    seconds: float = 0.0  # of training up to here, over all calls; NaN where a part was not kept
    recent: list[torch.Tensor] = field(default_factory=list)  # losses since the last line of the curve


def read_checkpoint(file: Path, modules: dict[str, nn.Module], optimizers) -> Kept:
    """Load modules and optimizers in place from a checkpoint; a fresh `Kept` where there is none."""
    if not file.exists():
        return Kept()
    state = torch.load(file, weights_only=True, map_location="cpu")
    for name, module in modules.items():
        module.load_state_dict(state[name])
    for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    # Checkpoints of older versions hold neither seconds nor recent losses.
    return Kept(state["step"], state.get("seconds", math.nan), list(state.get("recent", ())))


def log_line(file: Path, line: dict, seconds: float) -> None:
    """Append a point of a curve, with the seconds so far where they are known."""
    line = line | ({} if math.isnan(seconds) else {"seconds": round(seconds, 1)})
    with file.open("a") as log:
        log.write(json.dumps(line) + "\n")


def write_checkpoint(file: Path, modules: dict[str, nn.Module], optimizers, kept: Kept) -> None:
    """Write a checkpoint, whole or not at all."""
    state = {name: module.state_dict() for name, module in modules.items()}
    state |= {"optimizers": [optimizer.state_dict() for optimizer in optimizers]}
    state |= {"step": kept.step, "seconds": kept.seconds}
    state |= {"recent": torch.stack(kept.recent)} if kept.recent else {}
    with whole(file) as part:
        torch.save(state, part)


def write_plan(file: Path, seed: int, phases) -> None:
    """Write seed and phases of a finished half."""
    with whole(file) as part:
        part.write_text(json.dumps({"seed": seed, "phases": [asdict(phase) for phase in phases]}, indent=1))


def take_step(loss: torch.Tensor, parameters: list[nn.Parameter], optimizers, rate: float) -> None:
    """One step of Muon and AdamW, in this order, at AdamW's learning rate `rate`; the gradient's norm is cut at 1."""
    for optimizer, times in zip(optimizers, (MUON, 1.0), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = times * rate
        optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    for optimizer in optimizers:
        optimizer.step()


def means(recent: list[torch.Tensor]) -> list[float]:
    """Means of losses `[k]` over the steps, in double precision; waits for the device."""
    return torch.stack(recent).double().mean(0).tolist()


def phase_at(phases, step: int):
    """The phase in which a step lies, and the step's number inside it."""
    for phase in phases:
        if step < phase.steps:
            return phase, step
        step -= phase.steps
    raise ValueError(f"step {step} lies behind the last phase")


def cosine_fall(share: float) -> float:
    """Half a cosine from 1 to 0 as `share` goes from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * share))
