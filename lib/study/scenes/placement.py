"""Measure where a method's budget goes: on the answer's place, on other things, at the border, on tokens that look alike."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from lib.models.checkpoints import weights_digest
from lib.models.hub import load
from lib.paths import MODEL
from lib.pruning.base import Method
from lib.pruning.merging import gather_rows
from lib.pruning.methods import Blind, make
from lib.pruning.precision import cosine
from lib.study import records
from lib.study.arms import RIVALS, TIGHT
from lib.study.scenes.capture import Asked, sample, see
from lib.study.scenes.evaluate import write_measures
from lib.study.scenes.questions import evidence_mask
from lib.study.scenes.split import TEST_PICTURES, TEST_SEED, test_set

FILE = "placement.parquet"
# Measured quantity: what it says, for an axis.
QUANTITIES: Mapping[str, str] = MappingProxyType(
    {
        "evidence": "on the boxes that answer",
        "distractors": "on other items",
        "border": "on the outer ring",
        "bottom": "in the lowest quarter",
        "high_norm": "on the tenth of highest norm",
        "redundancy": "cosine to nearest kept token",
    }
)
CHANCE = "chance"  # what the grid holds of such tokens, in place of a method


def masks(asked: Sequence[Asked], norms: np.ndarray) -> dict[str, np.ndarray]:
    """Mark the tokens that each share counts: [B, N] bool a quantity.

    Parameters
    ----------
    asked
        The questions, one a row.
    norms
        [B, N] lengths of the encoder's features.
    """
    scenes = test_set()[0]
    rows, columns = scenes.layout.grid
    row, column = np.divmod(np.arange(rows * columns), columns)
    ring = (row == 0) | (row == rows - 1) | (column == 0) | (column == columns - 1)
    evidence = np.stack([one.evidence for one in asked])
    items = np.stack([evidence_mask(scenes.box[one.picture], (rows, columns)) for one in asked])
    tenth = round(norms.shape[1] / 10)
    rank = np.argsort(np.argsort(-norms, axis=1, kind="stable"), axis=1, kind="stable")
    return {
        "evidence": evidence,
        "distractors": items & ~evidence,
        "border": np.broadcast_to(ring, evidence.shape),
        "bottom": np.broadcast_to(row >= rows * 3 // 4, evidence.shape),
        "high_norm": rank < tenth,
    }


def shares(
    kept: torch.Tensor, marked: Mapping[str, np.ndarray], features: torch.Tensor
) -> dict[str, np.ndarray]:
    """Measure each row's kept tokens: [B] a quantity of `QUANTITIES`.

    Parameters
    ----------
    kept
        [B, k] int64.
    marked
        [B, N] bool a share, as `masks` gives them.
    features
        [B, N, D], whose cosine tells likeness.
    """
    found = {
        name: np.take_along_axis(mask, kept.numpy(), axis=1).mean(axis=1) for name, mask in marked.items()
    }
    likeness = cosine(gather_rows(features, kept), gather_rows(features, kept))
    likeness.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    return found | {"redundancy": likeness.amax(-1).mean(-1).numpy()}


def overlap(left: torch.Tensor, right: torch.Tensor) -> np.ndarray:
    """Share of the kept tokens [B, k] that two methods have in common: [B]."""
    return (left[:, :, None] == right[:, None]).any(-1).double().mean(-1).numpy()


def measure(loaded, asked: Sequence[Asked], methods: Sequence[Method], batch: int = 60) -> pd.DataFrame:
    """Run every method on the prompts of some questions and measure what it keeps: `measure` rows."""
    lines = []
    for first in tqdm(range(0, len(asked), batch), desc="placement", leave=False):
        some = asked[first : first + batch]
        features = see(loaded, some, Blind()).cues.features.float()
        marked = masks(some, features.norm(dim=-1).numpy())
        kept = {
            method.name: torch.stack(see(loaded, some, method).trace.kept)
            for method in tqdm(methods, desc="methods", leave=False)
        }
        found = {f"placement_{name}:{CHANCE}": mask.mean(axis=1) for name, mask in marked.items()}
        for place, (name, tokens) in enumerate(kept.items()):
            found |= {f"placement_{q}:{name}": v for q, v in shares(tokens, marked, features).items()}
            for other in list(kept)[place + 1 :]:
                found[f"overlap:{name}:{other}"] = overlap(tokens, kept[other])
        for index, one in enumerate(some):
            image = f"test-{TEST_SEED}-{one.picture:04d}"
            lines += [
                (name, one.suite, f"{image}-{one.suite}", image, float(v[index])) for name, v in found.items()
            ]
    columns = ["measure", "suite", "question_id", "image_id", "value"]
    return pd.DataFrame(lines, columns=columns).assign(model="scenes")


def record_placement(
    folder: Path, questions: int = 0, model: Path = MODEL, names: Sequence[str] = RIVALS
) -> Path:
    """Write the measures of all methods and the oracle at the tightest budget, one question a picture.

    An existing record is kept if it was made with the same weights on as many pictures for the same methods.

    Raises
    ------
    ValueError
        When `folder` holds a record of anything else: mixing them would be silent.
    """
    path, digest, pictures = folder / "measures" / FILE, weights_digest(model), questions or TEST_PICTURES
    methods = [make(name, keep=TIGHT) for name in ("oracle", *names)]
    configuration = {"keep": TIGHT, "methods": {method.name: asdict(method) for method in methods}}
    if path.exists():
        _check_record(path, digest, pictures, configuration)
        return path
    started = time.time()
    frame = measure(load(model), sample(questions), methods)
    return write_measures(
        frame,
        path,
        model,
        started,
        configuration,
        pictures=pictures,
        seed=max(getattr(method, "seed", -1) for method in methods),
        test_seed=TEST_SEED,
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
    )


def _check_record(path: Path, weights: str, pictures: int, configuration: Mapping[str, object]) -> None:
    told = records.read_provenance(path)
    # Through JSON, as the file holds it: tuples are lists there.
    wanted = {"weights": weights, "pictures": pictures, "config": json.loads(json.dumps(configuration))}
    other = [name for name, value in wanted.items() if told.get(name) != value]
    if other:
        words = {"weights": "weights", "pictures": "pictures", "config": "methods"}
        raise ValueError(
            f"{path.name}: made with other {' and '.join(words[name] for name in other)}; remove it and run again"
        )
