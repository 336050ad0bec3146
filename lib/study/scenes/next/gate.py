"""The gate of a model at 24 x 24: accuracy on the test split, retrieval by its CLIP pair, linear probes of its tower.

`python -m lib.study.scenes.next.gate --model FOLDER` prints the table; what is missed stays in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize

from lib.models import embedded
from lib.models.clip import encode_text
from lib.models.hub import Loaded, load
from lib.paths import user_path
from lib.pruning.methods import make
from lib.study.scenes.gate import PROBED
from lib.study.scenes.next.calibrate import BLIND_GAP, SEED, ask
from lib.study.scenes.next.words import SUITES, benchmark, caption
from lib.study.scenes.next.world import Layout, generate
from lib.study.scenes.retrieval import ASKED as RETRIEVED
from lib.study.scenes.retrieval import BATCH as COMPETING
from lib.study.scenes.training.probes import probe
from lib.study.stats import mean_interval

ACCURATE = dict.fromkeys(SUITES, 0.95) | {"scene": 0.90, "count": 0.85, "relate": 0.85}


def accuracy_rows(answers: pd.DataFrame) -> list[tuple]:
    """Accuracy of each suite with its interval over pictures, and unpruned minus blind, from rows of `calibrate.ask`."""
    rows, parts = [], {name: answers[answers["method"] == name] for name in ("none", "blind")}
    for suite in SUITES:
        full, blind = (part[part["suite"] == suite] for part in parts.values())
        told = mean_interval(full["correct"], full["picture"])
        gap = told.estimate - blind["correct"].mean()
        rows.append((f"accuracy {suite}", told.estimate, told.low, told.high, ACCURATE[suite]))
        rows.append((f"unpruned minus blind {suite}", gap, np.nan, np.nan, BLIND_GAP))
    return rows


@torch.no_grad()
def retrieval(loaded: Loaded, layout: Layout, pictures: int) -> tuple[float, float]:
    """Top-1 among test pictures and captions that name everything: image to text, text to image."""
    rng = np.random.default_rng([24, SEED, 9])
    scenes = generate(rng, pictures, layout, "test")
    texts = [caption(scenes, row, rng, everything=True, frame=layout) for row in range(pictures)]
    pixels = embedded.pixels(scenes.images).split(32)
    seen = torch.cat([loaded.model.model.vision_tower(some).pooler_output for some in pixels])
    image = normalize(loaded.clip.visual_projection(seen), dim=-1)
    similarity = image @ normalize(encode_text(loaded.clip, texts).sentence, dim=-1).T
    own = torch.arange(pictures)
    found = [float((similarity.argmax(axis) == own).float().mean()) for axis in (1, 0)]
    return found[0], found[1]


def probes(loaded: Loaded, layout: Layout, pictures: int = 400) -> dict[str, float]:
    """Accuracy of linear probes of the tower's states that the decoder reads; test pictures, half as many as it learns from."""
    seen = generate(np.random.default_rng([24, SEED, 5]), pictures, layout)
    rest = generate(np.random.default_rng([24, SEED, 6]), pictures // 2, layout, "test")
    return probe(loaded.model.model.vision_tower, seen, rest, boxes=True)


def gate_table(
    loaded: Loaded, pictures: int, layout: Layout, probed: int = 400, competing: int = COMPETING
) -> pd.DataFrame:
    """One row a condition: `condition, value, low, high, asked, met`."""
    answers = ask(loaded, *benchmark("test", pictures, SEED, layout), [make("none"), make("blind")])
    rows = accuracy_rows(answers)
    for way, value in zip(
        ("image to text", "text to image"), retrieval(loaded, layout, competing), strict=True
    ):
        rows.append((f"retrieval {way}, of {competing}", value, np.nan, np.nan, RETRIEVED))
    for name, value in probes(loaded, layout, probed).items():
        rows.append((f"linear probe {name}", value, np.nan, np.nan, PROBED))
    table = pd.DataFrame(rows, columns=["condition", "value", "low", "high", "asked"])
    return table.assign(met=np.where(table["value"] >= table["asked"], "met", "not met"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: prints the table, writes it where `--out` says; 0 when all is met, else 1."""
    made = argparse.ArgumentParser(prog="python -m lib.study.scenes.next.gate", description=__doc__)
    made.add_argument("--model", type=user_path, required=True, help="folder of a trained model")
    made.add_argument(
        "--pictures", type=int, default=300, help="test pictures, a question of each suite each"
    )
    made.add_argument("--sizes", type=int, nargs=2, default=Layout().sizes, help="of the objects, pixels")
    made.add_argument("--out", type=user_path, help="CSV file")
    given = made.parse_args(arguments)
    table = gate_table(load(given.model), given.pictures, Layout(sizes=tuple(given.sizes)))
    print(table.round(3).to_string(index=False))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(given.out, index=False, float_format="%.4f", lineterminator="\n")
    return int((table["met"] != "met").any())


if __name__ == "__main__":
    raise SystemExit(main())
