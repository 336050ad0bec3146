"""Measure what two claims need beyond answers: parts of the last vision layer, and picks of the selection.

`record_mechanisms` serves claim D-16, `record_identity` claim A-6; both write `measure` records.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from lib.models import embedded
from lib.models.hub import load
from lib.models.last_layer import watch_last_layer
from lib.paths import MODEL
from lib.pruning.methods import make
from lib.pruning.selection import adaptive_nms
from lib.study import records
from lib.study.arms import TIGHT, Arm, record_path
from lib.study.parity import oracles
from lib.study.scenes.evaluate import localisation, write_measures
from lib.study.scenes.split import LOCAL_SUITES, TEST_PICTURES, TEST_SEED, evidence_sizes, test_set

# The published size first and most often; other shapes to show that nothing hangs on it. Grid: trials, picks.
GRIDS = {(24, 24): (120, 57), (12, 12): (40, 14), (16, 9): (20, 29), (7, 13): (20, 18)}
GAP = 1e-5  # an input counts as free of ties when the runner-up of every pick is this far behind, relatively
# Whose kept tokens are scored for lying on the evidence: the two of the claim, the others for comparison.
LOCALISED = {
    "localisation_decoupled": {"name": "desap", "share": 1.0},
    "localisation_vanilla": {"name": "desap", "share": 1.0, "similarity": "vanilla"},
    "localisation_cls": {"name": "cls"},
    "localisation_fastv": {"name": "fastv"},
    "localisation_adaptprune": {"name": "adaptprune"},
    "localisation_random": {"name": "random", "seed": 0},
}
CHANCE = "localisation_chance"


def layer_cosines(model, images: np.ndarray, image_ids: list[str], batch: int = 50) -> pd.DataFrame:
    """Measure how much the full hidden state resembles the residual and the attention output.

    Parameters
    ----------
    images
        [P, side, side, 3] uint8.

    Returns
    -------
    DataFrame
        `measure` rows, without their model, cosine_residual and cosine_attention: mean cosine over an image's patches;
        suite "scene" and the image's id as question_id, because the quantity belongs to the image.
    """
    rows = []
    for first in tqdm(range(0, len(images), batch), desc="tower", leave=False):
        layer = watch_last_layer(model, embedded.pixels(images[first : first + batch]))
        for name in ("residual", "attention"):
            part = getattr(layer, name)[:, 1:]  # patches, without [CLS]
            value = cosine_similarity(layer.hidden[:, 1:], part, dim=-1).mean(1)
            for image, number in zip(image_ids[first : first + batch], value.tolist(), strict=True):
                rows.append((f"cosine_{name}", "scene", image, image, number))
    columns = ["measure", "suite", "question_id", "image_id", "value"]
    return pd.DataFrame(rows, columns=columns)


def localisations(folder: Path) -> pd.DataFrame:
    """Score the recorded arms of `LOCALISED` at the tightest budget, and chance, for lying on the evidence.

    Raises
    ------
    ValueError
        When an arm has no record in `folder`.
    """
    sizes, parts, frame = evidence_sizes(), [], None
    for name, fields in LOCALISED.items():
        arm = Arm(method=make(fields["name"], keep=TIGHT, **{k: v for k, v in fields.items() if k != "name"}))
        frame = records.read(record_path(folder, arm))
        parts.append(localisation(frame, name, sizes))
    tokens = math.prod(test_set()[0].layout.grid)
    chance = frame[frame["suite"].isin(LOCAL_SUITES) & frame["kept_on_evidence"].notna()]
    chance = chance[["model", "suite", "question_id", "image_id"]]
    parts.append(chance.assign(measure=CHANCE, value=chance["question_id"].map(sizes) / tokens))
    return pd.concat(parts, ignore_index=True)


def record_mechanisms(folder: Path, questions: int = 0, model: Path = MODEL) -> Path:
    """Write the measures of claim D-16 for the pictures whose arms are already recorded in `folder`."""
    started, pictures = time.time(), questions or TEST_PICTURES
    images = test_set()[0].images[:pictures]
    ids = [f"test-{TEST_SEED}-{row:04d}" for row in range(len(images))]
    frame = pd.concat([layer_cosines(load(model).model, images, ids), localisations(folder)])
    path, config = folder / "measures" / "D-16_mechanisms.parquet", {"keep": TIGHT, "localised": LOCALISED}
    return write_measures(frame, path, model, started, config, pictures=pictures)


def trial(rng: np.random.Generator, grid: tuple[int, int], width: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores [N] and features [N, width] on which likeness matters.

    Scores are evenly spaced levels in random order. Features are a few directions with noise, so that cosines
    spread over the range where the published sigma fades.
    """
    tokens = math.prod(grid)
    scores = rng.permutation(np.linspace(0.1, 1.0, tokens)).astype(np.float32)
    centres = rng.standard_normal((6, width))
    noise = rng.uniform(0.05, 0.35, (tokens, 1)) * rng.standard_normal((tokens, width))
    return scores, (centres[rng.integers(0, 6, tokens)] + noise).astype(np.float32)


def least_gap(scores: np.ndarray, features: np.ndarray, grid: tuple[int, int], picks: list[int]) -> float:
    """Replay picks and return the smallest relative lead of a pick over the best other token left.

    Only used to tell inputs that rounding could decide; it judges nothing.
    """
    rows, columns = np.divmod(np.arange(len(scores)), grid[1])
    unit = features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    live, free, gap = scores.astype(np.float64), np.ones(len(scores), bool), math.inf
    for pick in picks:
        free[pick] = False
        if free.any():
            gap = min(gap, abs(live[pick] - live[free].max()) / max(live[pick], 1e-300))
        squared = (rows - rows[pick]) ** 2 + (columns - columns[pick]) ** 2
        fade = np.exp(-squared / (2 * 1.5**2)) * np.exp(-((1 - unit @ unit[pick]) ** 2) / (2 * 0.05**2))
        live = live * np.where(squared <= 25, 1 - fade, 1.0)
    return gap


def compare_picks(grid: tuple[int, int], keep: int, trials: int, seed: int = 0) -> pd.DataFrame:
    """Compare the library's ordered picks with the slow transcription on inputs free of ties.

    Returns
    -------
    DataFrame
        `measure` rows nms_picks_equal, 1 where every pick is equal in equal order; model "constructed".
    """
    rng = np.random.default_rng([seed, *grid, keep])
    rows, name = [], f"{grid[0]}x{grid[1]}"
    with tqdm(total=trials, desc=f"picks {name}", leave=False) as bar:
        while len(rows) < trials:
            scores, features = trial(rng, grid)
            expected = oracles.adaptive_nms(scores, features, grid, keep)
            if least_gap(scores, features, grid, expected) < GAP:
                continue
            found = adaptive_nms(
                torch.from_numpy(scores)[None], torch.from_numpy(features)[None], grid, keep, order="picked"
            )
            label = f"nms-{name}-{len(rows):03d}"
            rows.append(("nms_picks_equal", name, label, label, float(found[0].tolist() == expected)))
            bar.update()
    columns = ["measure", "suite", "question_id", "image_id", "value"]
    return pd.DataFrame(rows, columns=columns).assign(model="constructed")


def record_identity(folder: Path, seed: int = 0, grids: dict | None = None) -> Path:
    """Write the trials of claim A-6: `grids` maps a grid to its number of trials and of picks."""
    started, grids = time.time(), grids or GRIDS
    parts = [compare_picks(grid, keep, trials, seed) for grid, (trials, keep) in grids.items()]
    frame = pd.concat(parts, ignore_index=True)
    facts = records.provenance(
        config={"grids": {f"{rows}x{columns}": told for (rows, columns), told in grids.items()}, "gap": GAP},
        model="constructed",
        seed=seed,
        device="cpu",
        dtype="float32",
        n=len(frame),
        seconds=round(time.time() - started, 1),
    )
    return records.write(frame, folder / "measures" / "A-6_identity.parquet", facts, kind="measure")
