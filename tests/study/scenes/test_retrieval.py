"""Zero-shot retrieval: each picture's own caption among others'."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.models.clip import ClipPair
from lib.study import records
from lib.study.scenes import capture, retrieval


def test_hits_are_counted_both_ways_and_repeat():
    loaded = capture.quiet_model()
    image, text = retrieval.hits(loaded, 0, size=12)
    assert image.shape == text.shape == (12,)
    assert image.dtype == bool
    again = retrieval.hits(loaded, 0, size=12)
    assert np.array_equal(image, again[0])
    # The shipped CLIP knows its captions; twelve at random would give one.
    assert image.mean() > 0.5
    assert text.mean() > 0.5


def test_a_text_tower_that_hears_nothing_finds_nothing():
    loaded = capture.quiet_model()
    clip = loaded.clip
    silent = torch.nn.Linear(clip.text_projection.in_features, clip.text_projection.out_features, bias=False)
    torch.nn.init.zeros_(silent.weight)
    deaf = ClipPair(clip.text_model, silent, clip.visual_projection, clip.tokenizer)
    image, _ = retrieval.hits(replace(loaded, clip=deaf), 0, size=12)
    assert image.sum() == 1  # the first caption wins every tie, and is one picture's own


def test_rows_make_a_record(tmp_path):
    path = retrieval.record(tmp_path, batches=1)
    frame = records.read(path, "measure")
    assert len(frame) == 2 * retrieval.BATCH
    assert set(frame["measure"]) == {retrieval.IMAGE, retrieval.TEXT}
    assert records.read_provenance(path)["config"] == {"batch": 128, "batches": 1}
    with pytest.raises(ValueError, match="holds measure rows"):
        records.read(path)
