"""The embedded model on disk: small shards, loadable as a hub checkpoint is, with its tower's CLIP pair."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from lib.models import embedded, hub
from lib.models.architectures import Sizes
from lib.models.embedded import PROMPT
from lib.paths import MODELS

MIB = 2**20
WORDS = ["color", "is", "red", "star", "the", "what", "?"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.manual_seed(0)
    sizes, vocab = Sizes(), embedded.vocabulary(WORDS)
    clip = embedded.clip_model(sizes, len(vocab)).eval()
    model = embedded.llava_model(sizes, clip, len(vocab)).eval()
    folder = tmp_path_factory.mktemp("model")
    embedded.save(folder, model, clip, sizes, vocab, {"seed": 0})
    return folder, model, clip


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8))


def inputs_of(processor, picture, text="what color is the star ?"):
    return processor(images=picture, text=PROMPT.format(question=text), return_tensors="pt")


def test_round_trip_gives_the_same_logits(made, picture):
    folder, model, _ = made
    processor = AutoProcessor.from_pretrained(folder)
    inputs = inputs_of(processor, picture)
    loaded = AutoModelForImageTextToText.from_pretrained(folder).eval()
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_clip_pair_is_that_of_the_tower(made):
    folder, model, clip = made
    pair = hub.load(folder).clip
    assert torch.equal(pair.fingerprint, model.model.vision_tower.post_layernorm.weight)
    assert torch.equal(pair.text_projection.weight, clip.text_projection.weight)
    assert pair.limit == 77
    ids = pair.tokenizer("what color is red ?")["input_ids"]
    assert pair.tokenizer.convert_ids_to_tokens(ids) == ["<s>", "what", "color", "is", "red", "?", "</s>"]


def test_files_are_small(made):
    for folder in (made[0], MODELS / "scenes"):
        weights = [path.stat().st_size for path in folder.rglob("*.safetensors")]
        assert weights
        assert max(weights) < 16 * MIB
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 40 * MIB


def test_shipped_folder_loads_and_says_how_it_was_made(picture):
    loaded = hub.load(MODELS / "scenes")
    assert loaded.clip is not None
    assert "sizes" in json.loads((MODELS / "scenes" / "training.json").read_text())
    inputs = inputs_of(loaded.processor, picture)
    with torch.no_grad():
        out = loaded.model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert out.shape[1] <= inputs["input_ids"].shape[1] + 2


def test_prompt_holds_one_placeholder_a_patch_and_unknown_words_are_marked(made, picture):
    processor = AutoProcessor.from_pretrained(made[0])
    ids = inputs_of(processor, picture, "what color is the zebra ?")["input_ids"][0].tolist()
    assert ids[:2] == [embedded.START, embedded.USER]
    assert ids.count(embedded.IMAGE) == Sizes().grid ** 2
    assert ids[-1] == embedded.ASSISTANT
    assert embedded.UNKNOWN in ids
    assert embedded.END not in ids


def test_pixels_are_the_processors(made, picture):
    processor = AutoProcessor.from_pretrained(made[0])
    theirs = inputs_of(processor, picture)["pixel_values"]
    torch.testing.assert_close(embedded.pixels(np.array(picture)[None]), theirs, atol=1e-6, rtol=0)


def test_tower_is_frozen_and_nothing_else(made):
    _, model, _ = made
    frozen = {name.split(".")[1] for name, weight in model.named_parameters() if not weight.requires_grad}
    assert frozen == {"vision_tower"}
