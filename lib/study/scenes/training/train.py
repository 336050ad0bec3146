"""Train the embedded model from start to end, and read the record of such a run.

`train` needs about 75 minutes at scale 1 on two cores; what it leaves is a folder that loads as any checkpoint, with `training.json`.
`python -m lib train --out FOLDER` does the same in calls of a few minutes, at either of two grids, on a GPU if asked.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from lib.files import alone, whole
from lib.models import embedded
from lib.study.scenes.questions import words
from lib.study.scenes.render import generate
from lib.study.scenes.training import probes, train_decoder, train_tower
from lib.study.scenes.training.recipe import RECIPES, Recipe


def train(
    folder: Path,
    scale: float = 1.0,
    seed: int = 0,
    probed: int = 500,
    *,
    recipe: Recipe = RECIPES[12],
    device: str = "cpu",
    workers: int = 0,
    minutes: float = math.inf,
) -> Path:
    """Train tower and decoder, probe the tower, save the model; an interrupted call goes on where it stopped.

    Parameters
    ----------
    folder
        Gets `checkpoints/` and `model/`.
    scale
        Factor of all step counts; 1 is the shipped recipe.
    seed
        Of weights and pictures.
    probed
        Pictures that the linear probes learn from; half as many test them.
    recipe
        Sizes, pictures and curricula.
    device
        "cpu" or "cuda". On the CPU an interrupted run ends in the same weights as one that was not; sums of a GPU come in
        no fixed order, so there they may differ in the last digits.
    workers
        Processes that draw pictures ahead; 0 draws in this one. They do not change what is drawn.
    minutes
        Time after which no further step is begun. The probes between tower and decoder are not cut short.

    Returns
    -------
    Path
        The folder of the finished model.

    Raises
    ------
    ValueError
        When `scale` or `minutes` is not positive, the device is not there, or `folder` holds checkpoints of another scale,
        seed or grid.
    Paused
        When `minutes` were over before the training; the same call goes on.
    BlockingIOError
        When another process trains in `folder`.
    """
    for name, value in (("scale", scale), ("minutes", minutes)):
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device 'cuda' was asked for, but torch {torch.__version__} sees no CUDA device")
    until = time.monotonic() + 60 * minutes
    checkpoints, model_folder = folder / "checkpoints", folder / "model"
    _claim(checkpoints, {"scale": scale, "seed": seed, "grid": recipe.sizes.grid})
    sizes, vocab = recipe.sizes, embedded.vocabulary(words())
    ways = {"frame": recipe.frame, "device": device, "workers": workers, "until": until}
    with alone(checkpoints / "lock", f"the training in {folder}"), _tensor_cores(device):
        clip = train_tower.train_tower(checkpoints, vocab, sizes, recipe.tower(scale), seed, **ways)
        probe = _probe(checkpoints, clip.vision_model, seed, probed, recipe)
        phases = recipe.decoder(scale)
        model = train_decoder.train_decoder(checkpoints, clip, vocab, sizes, phases, seed, **ways)
        spent = sum(_seconds(checkpoints / f"{half}.pt") for half in ("tower", "decoder"))
        card = {
            "tower": _part(checkpoints, "tower") | {"probe": probe["accuracy"]},
            "decoder": _part(checkpoints, "decoder"),
            "grid": sizes.grid,
            "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
            "torch": torch.__version__,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "hardware": _hardware(device),
            "notes": [f"scale {scale}"],
        }
        if not math.isnan(spent):  # older checkpoints kept no time
            card["minutes"] = round((spent + probe["seconds"]) / 60, 2)
            card["notes"].append(f"trained and probed in {card['minutes']:.1f} minutes over all calls")
        if device == "cuda":
            card["notes"].append("float32 with matrix products in TF32 (torch's matmul precision high)")
        embedded.save(model_folder, model.cpu(), clip.cpu(), sizes, vocab, card)
    return model_folder


@contextmanager
def _tensor_cores(device: str) -> Iterator[None]:
    """Let a GPU multiply float32 matrices in TF32 within the block; nothing on a CPU."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if device == "cuda" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _hardware(device: str) -> str:
    cores = f"{os.cpu_count()} CPU cores ({platform.machine()}), {torch.get_num_threads()} threads"
    return f"{torch.cuda.get_device_name()}; {cores}" if device == "cuda" else cores


def _probe(checkpoints: Path, vision, seed: int, probed: int, recipe: Recipe) -> dict:
    """Accuracies of the probes of the trained tower and their seconds; made once, then read."""
    file = checkpoints / "probe.json"
    told = json.loads(file.read_text()) if file.exists() else {}
    if told.get("pictures") != probed:
        started = time.time()
        seen = generate(np.random.default_rng([seed, 5]), probed, recipe.frame)
        rest = generate(np.random.default_rng([seed, 6]), max(20, probed // 2), recipe.frame, "validation")
        accuracy = probes.probe(vision, seen, rest)
        told = {"pictures": probed, "accuracy": accuracy, "seconds": round(time.time() - started, 1)}
        with whole(file) as part:
            part.write_text(json.dumps(told))
    return told


def _seconds(checkpoint: Path) -> float:
    """Training time that a checkpoint took, NaN where an older version wrote it."""
    return torch.load(checkpoint, weights_only=True, map_location="cpu").get("seconds", math.nan)


def _claim(checkpoints: Path, run: dict[str, float]) -> None:
    """Mark a checkpoint folder with what it is for; refuse one of another run."""
    mark = checkpoints / "run.json"
    if not mark.exists():
        with whole(mark) as part:
            part.write_text(json.dumps(run))
    told = {"grid": 12} | json.loads(mark.read_text())  # there was one grid before marks named it
    if told != {"grid": 12} | run:
        raise ValueError(
            f"{checkpoints} holds a run with {told}, asked for {run}; remove it or name another output"
        )


def _part(checkpoints: Path, name: str) -> dict:
    """Seed, phases and curve of one half; a step logged twice by a resumed run counts once."""
    told = json.loads((checkpoints / f"{name}.json").read_text())
    lines = map(json.loads, (checkpoints / f"{name}.jsonl").read_text().splitlines())
    curve = {line["step"]: line for line in lines}
    return told | {"curve": [curve[step] for step in sorted(curve)]}
