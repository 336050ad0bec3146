"""Train the model of 24 x 24 visual tokens, seed after seed; the same command goes on from the last checkpoint.

`python -m lib.study.scenes.next.train` leaves a folder a seed in `data/runs/scenes24`: `tower.pt`, `shallow.pt`, `decoder.pt`
(checkpoints, with optimizers), `.jsonl` beside them (curves with validation accuracies) and `.json` (plans of finished halves).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from lib.files import alone, whole
from lib.models import embedded
from lib.paths import RUNS as ALL_RUNS
from lib.paths import user_path
from lib.study.scenes.next import recipe
from lib.study.scenes.next.decoder import train_decoder
from lib.study.scenes.next.words import words
from lib.study.scenes.next.world import generate
from lib.study.scenes.training import probes, train_tower
from lib.study.scenes.training.batches import Paused
from lib.study.scenes.training.half_linears import half_linears, pays

RUNS = ALL_RUNS / "scenes24"
SAVED = 120.0  # seconds between two checkpoints at most
PROBED = 400  # pictures that the linear probes learn from; half as many test them


def train(folder: Path, seed: int, *, until: float = math.inf) -> None:
    """Train one seed in its folder; goes on where an earlier call stopped, and raises `Paused` at `until`."""
    vocab = embedded.vocabulary(words())
    ways = {"seconds": SAVED, "within": half_linears if pays() else nullcontext, "until": until}
    with alone(folder / "lock", f"the training in {folder}"):
        clip = train_tower.train_tower(
            folder,
            vocab,
            recipe.SIZES,
            recipe.tower(),
            seed,
            every=10,
            frame=recipe.WHOLE,
            world=recipe.WORLD,
            **ways,
        )
        probe(folder, clip.vision_model, seed)
        ways |= {"frame": recipe.WHOLE}
        begun = train_decoder(
            folder, clip, vocab, recipe.SHALLOW, recipe.shallow(), seed, name="shallow", **ways
        )
        train_decoder(folder, clip, vocab, recipe.SIZES, recipe.decoder(), seed, shallow=begun, **ways)
    write_model(folder)


def write_model(folder: Path) -> Path:
    """Write `model/`, loadable as any checkpoint, from what a seed's folder holds now, finished or not."""
    vocab = embedded.vocabulary(words())
    clip = embedded.clip_model(recipe.SIZES, len(vocab))
    tower, kept = (torch.load(folder / f"{half}.pt", weights_only=True) for half in ("tower", "decoder"))
    clip.load_state_dict(tower["clip"])
    model = embedded.llava_model(recipe.SIZES, clip, len(vocab))
    model.load_state_dict(kept["model"])
    curves = {half: read_curve(folder / f"{half}.jsonl") for half in ("tower", "shallow", "decoder")}
    card = {half: {"steps": curve[-1]["step"], "curve": curve} for half, curve in curves.items()}
    probed = folder / "probe.json"
    card |= {"probe": json.loads(probed.read_text())} if probed.exists() else {}
    embedded.save(folder / "model", model.eval(), clip.eval(), recipe.SIZES, vocab, card)
    return folder / "model"


def read_curve(file: Path) -> list[dict]:
    """Points of a curve by step; of a step that a resumed run logged twice, the later one."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return list({line["step"]: line for line in lines}.values())


def probe(folder: Path, vision, seed: int) -> None:
    """Write what linear probes read from the finished tower on validation pictures; made once."""
    file = folder / "probe.json"
    if file.exists():
        return
    seen = generate(np.random.default_rng([seed, 5]), PROBED, recipe.WHOLE)
    rest = generate(np.random.default_rng([seed, 6]), PROBED // 2, recipe.WHOLE, "validation")
    told = probes.probe(vision, seen, rest, boxes=True)
    with whole(file) as part:
        part.write_text(json.dumps({"pictures": PROBED, "accuracy": told}, indent=1))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0 when all seeds are finished, 3 when the time was over before."""
    made = argparse.ArgumentParser(prog="python -m lib.study.scenes.next.train", description=__doc__)
    made.add_argument("--out", type=user_path, default=RUNS, help="gets a folder a seed")
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--minutes", type=float, default=math.inf, help="stop after so long with a checkpoint")
    given = made.parse_args(arguments)
    torch.set_num_threads(given.threads)
    until = time.monotonic() + 60 * given.minutes
    for seed in given.seeds:
        try:
            train(given.out / str(seed), seed, until=until)
        except Paused as paused:
            print(f"not finished: {paused}; run the same command again to go on")
            return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
