"""How far a method's choice moves when its cues come in half precision.

``python -m lib half-precision`` writes the rows to ``data/tables/precision_overlap.csv``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from lib.paths import TABLES
from lib.pruning import methods
from lib.pruning.contract import make_cues
from lib.study.costs.inputs import make_inputs

COLUMNS = ("method", "dtype", "tokens", "keep", "draws", "overlap_mean", "overlap_least")
PATH = TABLES / "precision_overlap.csv"
DTYPES: Mapping[str, torch.dtype] = MappingProxyType({"float16": torch.float16, "bfloat16": torch.bfloat16})


def random_cues(tokens: int, width: int = 64, seed: int = 0) -> methods.Cues:
    """Every cue of one sample filled with random values, features in twelve kinds: float32, a square grid."""
    given = make_inputs(tokens, width, 1, seed)
    names = ("features", "keys", "vision_keys", "projected", "patches", "attended_keys", "final_states")
    features = dict.fromkeys(names, given.features)
    return dataclasses.replace(make_cues(seed, 1, given.grid, width), **features)


def in_dtype(cues: methods.Cues, dtype: torch.dtype) -> methods.Cues:
    """The same cues with every floating tensor rounded to ``dtype``."""
    values = {field.name: getattr(cues, field.name) for field in dataclasses.fields(cues)}
    rounded = {
        name: value.to(dtype)
        for name, value in values.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    return dataclasses.replace(cues, **rounded)


def overlap(method: methods.Method, cues: methods.Cues, dtype: torch.dtype) -> float:
    """Share of the float32 choice that stays when the cues are rounded to ``dtype``, mean over the batch."""
    wide, narrow = (method.choose(each).kept for each in (cues, in_dtype(cues, dtype)))
    return (wide[:, :, None] == narrow[:, None]).any(-1).double().mean().item()


def budgeted() -> list[str]:
    """The methods that choose: all but those that are built without a budget."""
    names = []
    for name in methods.NAMES:
        try:
            methods.make(name)
        except ValueError:
            names.append(name)
    return names


def overlap_table(tokens: int = 576, keep: int = 64, draws: int = 10, width: int = 64) -> pd.DataFrame:
    """One row a method and dtype, columns `COLUMNS`; ``draws`` random samples each, the same for all."""
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    samples = [random_cues(tokens, width, seed) for seed in range(draws)]
    rows = []
    for name in tqdm(budgeted(), desc="half precision", leave=False):
        method = methods.make(name, keep=keep)
        for label, dtype in DTYPES.items():
            found = [overlap(method, sample, dtype) for sample in samples]
            rows.append((name, label, tokens, keep, draws, sum(found) / draws, min(found)))
    return pd.DataFrame(rows, columns=list(COLUMNS)).round({"overlap_mean": 4, "overlap_least": 4})
