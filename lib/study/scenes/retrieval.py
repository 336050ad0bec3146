"""Does the embedded CLIP know which caption belongs to which picture? If not, text similarity would be no fair cue."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize
from tqdm import tqdm

from lib.models import embedded
from lib.models.clip import encode_text
from lib.models.hub import Loaded, load
from lib.paths import MODEL
from lib.study.scenes.evaluate import write_measures
from lib.study.scenes.questions import caption
from lib.study.scenes.render import generate
from lib.study.scenes.split import TEST_SEED

BATCH, BATCHES = 128, 10  # pictures that compete; how many such sets
ASKED = 0.80  # top-1, each way
IMAGE, TEXT = "retrieval_image_to_text", "retrieval_text_to_image"


@torch.no_grad()
def hits(loaded: Loaded, seed: int, size: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
    """Zero-shot retrieval among some test pictures and captions that name everything on them.

    Parameters
    ----------
    loaded : model with its CLIP pair.
    seed : of the pictures and of the captions' wording.
    size : pictures.

    Returns
    -------
    tuple
        [size] bool each: the picture's own caption is the most similar one; the caption's own picture is.
    """
    rng = np.random.default_rng([TEST_SEED, seed])
    scenes = generate(rng, size, split="test")
    texts = [caption(scenes, row, rng, everything=True) for row in range(size)]
    seen = loaded.model.model.vision_tower(embedded.pixels(scenes.images)).pooler_output
    image = normalize(loaded.clip.visual_projection(seen), dim=-1)
    text = normalize(encode_text(loaded.clip, texts).sentence, dim=-1)
    similarity, own = image @ text.T, torch.arange(size)
    return (similarity.argmax(1) == own).numpy(), (similarity.argmax(0) == own).numpy()


def measure(loaded: Loaded, batches: int = BATCHES, size: int = BATCH) -> pd.DataFrame:
    """Top-1 retrieval both ways: `measure` rows without their model, 1 where the own one is found."""
    rows = []
    for batch in tqdm(range(batches), desc="retrieval", leave=False):
        for name, found in zip((IMAGE, TEXT), hits(loaded, batch, size), strict=True):
            ids = [f"retrieval-{TEST_SEED}-{batch}-{row:03d}" for row in range(size)]
            rows.append(pd.DataFrame({"measure": name, "question_id": ids, "value": found.astype(float)}))
    frame = pd.concat(rows, ignore_index=True)
    return frame.assign(suite="captions", image_id=frame["question_id"])


def record(folder: Path, batches: int = BATCHES, model: Path = MODEL) -> Path:
    """Measure and write `measures/retrieval.parquet` below a folder of records."""
    started, frame = time.time(), measure(load(model), batches)
    config = {"batch": BATCH, "batches": batches}
    path = folder / "measures" / "retrieval.parquet"
    return write_measures(frame, path, model, started, config, test_seed=TEST_SEED)
