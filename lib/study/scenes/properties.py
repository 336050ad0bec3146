"""Does the embedded model behave as large models are known to? Each property is a number a picture, held against a level.

Properties, levels and what is expected lie in `data/published/real_models.csv`; they were written before any was measured.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from tqdm import tqdm

from lib.models.hub import Loaded, load
from lib.paths import MODEL, PUBLISHED
from lib.pruning.base import Needs
from lib.pruning.cues import cls_saliency, last_query_saliency
from lib.pruning.methods import Blind, DeSAP, FastV
from lib.pruning.precision import cosine
from lib.study.scenes import capture
from lib.study.scenes.claim_measures import layer_cosines
from lib.study.scenes.cue_measures import distances
from lib.study.scenes.evaluate import write_measures
from lib.study.scenes.layout import EMPTY
from lib.study.scenes.questions import evidence_mask
from lib.study.scenes.split import TEST_PICTURES, TEST_SEED, test_set
from lib.study.stats import mean_interval

# Quantity in the table of known behaviour: name of the measure in the records.
MEASURES: Mapping[str, str] = MappingProxyType(
    {
        "attention of [CLS] on objects over their share of the picture": "real_cls_on_objects",
        "last prompt token's attention on the bottom quarter over a quarter": "real_bottom_quarter",
        "area under the curve of the attention at layer 2 for the tokens that answer": "real_auc_attention",
        "attention of [CLS] on the tenth of patches with the largest norm over a tenth": "real_cls_on_sinks",
        "cosine of adjacent patches minus that of pairs as far apart in two pictures": "real_neighbours",
        "cosine of the hidden state with the residual minus with the attention part": "real_residual",
        "area under the curve of the vanilla similarity for the tokens that answer": "real_auc_vanilla",
        "area under the curve of the decoupled similarity for the tokens that answer": "real_auc_decoupled",
    }
)
NEAR = 0.05  # "near" a level: the whole interval within so much of it
LAYER = 2  # where FastV and AdaptPrune prune
COLUMNS = ("measure", "suite", "question_id", "image_id", "value")
BATCH = 60


def known() -> pd.DataFrame:
    """Read what is known of real models: one row a property.

    Raises
    ------
    ValueError
        When a row's quantity is not measured here.
    """
    table = pd.read_csv(PUBLISHED / "real_models.csv")
    strange = sorted(set(table["quantity"]) - set(MEASURES))
    if strange:
        raise ValueError(f"real_models.csv: {strange[0]!r} is not measured here")
    return table.assign(measure=table["quantity"].map(MEASURES))


def concentration(weights: Tensor, inside: Tensor) -> np.ndarray:
    """Share of a map on some tokens over the share that these are of all, [B]; 1 is even, NaN where there are none.

    Parameters
    ----------
    weights : [B, N], not negative.
    inside : [B, N] bool.
    """
    on = (weights * inside).sum(-1) / weights.sum(-1)
    return (on / inside.double().mean(-1)).masked_fill(~inside.any(-1), torch.nan).double().numpy()


def areas(maps: Tensor, inside: Tensor) -> np.ndarray:
    """Area under the ROC curve of each map [B, N] for the tokens `inside` [B, N] bool; NaN where all or none are."""
    usable = inside.any(-1) & ~inside.all(-1)
    rows = zip(maps.double().numpy(), inside.numpy(), usable.tolist(), strict=True)
    return np.array([roc_auc_score(truth, scores) if fits else np.nan for scores, truth, fits in rows])


def neighbour_excess(features: Tensor, grid: tuple[int, int]) -> np.ndarray:
    """Mean cosine of adjacent tokens, minus that of the same pairs of places with one token of the next picture: [B]."""
    adjacent = torch.from_numpy(distances(grid) == 1)
    same, other = cosine(features, features), cosine(features, features.roll(1, 0))
    return (same[:, adjacent].mean(-1) - other[:, adjacent].mean(-1)).double().numpy()


def measure(loaded: Loaded, questions: int = 0) -> pd.DataFrame:
    """Measure every property of `known`: `measure` rows without their model.

    Parameters
    ----------
    loaded : the embedded model.
    questions : test pictures, one question with evidence each; 0 takes all.
    """
    asked, grid = capture.sample(questions), test_set()[0].layout.grid
    firsts = tqdm(range(0, len(asked), BATCH), desc="properties", leave=False)
    parts = [_batch(loaded, asked[first : first + BATCH], grid) for first in firsts]
    images = test_set()[0].images[: questions or TEST_PICTURES]
    names = [f"test-{TEST_SEED}-{row:04d}" for row in range(len(images))]
    parts.append(residual_rows(layer_cosines(loaded.model, images, names)))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _batch(loaded: Loaded, asked: Sequence[capture.Asked], grid: tuple[int, int]) -> pd.DataFrame:
    task = {kind: DeSAP(keep=16, share=1.0, similarity=kind) for kind in ("vanilla", "decoupled")}
    maps = {
        kind: method.choose(capture.see(loaded, asked, Blind(), method.needs()).cues).scores["task"]
        for kind, method in task.items()
    }
    seen = capture.see(loaded, asked, Blind(), Needs(saliency_layer=-1)).cues
    saliency = cls_saliency(seen.saliency)
    attention = last_query_saliency(
        capture.decoder_cues(loaded, asked, FastV(keep=16, layer=LAYER)).attention
    )
    evidence = torch.from_numpy(np.stack([one.evidence for one in asked]))
    length = seen.features.double().norm(dim=-1)
    largest = torch.zeros_like(evidence).scatter(1, length.topk(round(0.1 * length.shape[1])).indices, True)
    bottom = (torch.arange(length.shape[1]) >= length.shape[1] * 3 // 4).expand_as(evidence)
    found = {
        "real_cls_on_objects": concentration(saliency, objects(asked, grid)),
        "real_cls_on_sinks": concentration(saliency, largest),
        "real_bottom_quarter": concentration(attention, bottom),
        "real_auc_attention": areas(attention, evidence),
        "real_auc_vanilla": areas(maps["vanilla"], evidence),
        "real_auc_decoupled": areas(maps["decoupled"], evidence),
        "real_neighbours": neighbour_excess(seen.features, grid),
    }
    images = [f"test-{TEST_SEED}-{one.picture:04d}" for one in asked]
    told = {"suite": [one.suite for one in asked], "image_id": images}
    told["question_id"] = [f"{image}-{one.suite}" for image, one in zip(images, asked, strict=True)]
    rows = [pd.DataFrame(told | {"measure": name, "value": values}) for name, values in found.items()]
    return pd.concat(rows).dropna(subset="value")


def objects(asked: Sequence[capture.Asked], grid: tuple[int, int]) -> Tensor:
    """Tokens on any object, card or badge of each question's picture: [B, N] bool."""
    scenes = test_set()[0]
    boxes = [scenes.box[one.picture][scenes.kind[one.picture] != EMPTY] for one in asked]
    return torch.from_numpy(np.stack([evidence_mask(found, grid) for found in boxes]))


def record(folder: Path, questions: int = 0, model: Path = MODEL) -> Path:
    """Measure and write `measures/realism.parquet` below a folder of records."""
    started, frame = time.time(), measure(load(model), questions)
    path, pictures = folder / "measures" / "realism.parquet", questions or TEST_PICTURES
    return write_measures(frame, path, model, started, {"layer": LAYER}, pictures=pictures)


def residual_rows(cosines: pd.DataFrame) -> pd.DataFrame:
    """Cosine of the hidden state with the residual minus with the attention part, from rows of `layer_cosines`."""
    keys = ["suite", "question_id", "image_id"]
    wide = cosines.pivot(index=keys, columns="measure", values="value")
    value = (wide["cosine_residual"] - wide["cosine_attention"]).rename("value").reset_index()
    return value.assign(measure="real_residual")


def table(measures: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Hold each property against its level: mean, 95 % interval over pictures, and whether it is as in real models.

    Returns
    -------
    DataFrame
        The columns of `known`, then n, estimate, low, high and found ("like real models", "unlike", "unclear").
    """
    out = []
    for row in known().itertuples():
        mine = measures[measures["measure"] == row.measure]
        if mine.empty:
            raise ValueError(
                f"records hold no measure {row.measure}; run this notebook with source live first"
            )
        found = mean_interval(mine["value"].to_numpy(), mine["image_id"].to_numpy(), seed)
        out.append((found.n, found.estimate, found.low, found.high, _like(found, row.level, row.expected)))
    return known().join(pd.DataFrame(out, columns=["n", "estimate", "low", "high", "found"]))


def _like(found, level: float, expected: str) -> str:
    if expected == "near":
        if level - NEAR <= found.low and found.high <= level + NEAR:
            return "like real models"
        return "unlike" if found.low > level + NEAR or found.high < level - NEAR else "unclear"
    above, below = found.low > level, found.high < level
    if not (above or below):
        return "unclear"
    return "like real models" if above == (expected == "above") else "unlike"
