"""Checkpoints on disk: what loads, and how fast and clearly a broken one is refused."""

import json
import shutil
import time

import pytest
import torch
from transformers import CLIPImageProcessorPil, LlavaProcessor

from lib.models import checkpoints, hub
from lib.models.clip import ClipPair
from lib.models.prune import prune
from lib.pruning import methods


def build_processor(tiny, side=56, patch=14, extra=1, special=None):
    image = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    words = tiny.tokenizer(ends=False) if special is None else tiny.tokenizer(special, ends=False)
    return LlavaProcessor(
        image,
        words,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=extra,
        image_token="<image>",
    )


@pytest.fixture(scope="module")
def checkpoint(tiny, model, clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder, max_shard_size="60KB")
    build_processor(tiny).save_pretrained(folder)
    clip.save_pretrained(folder / "clip")
    tiny.tokenizer().save_pretrained(folder / "clip")
    return folder


@pytest.fixture
def copied(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "copy")


def test_load_gives_the_same_model_ready_to_prune(checkpoint, model, tiny):
    loaded = hub.load(checkpoint)
    assert len(list(checkpoint.glob("*.safetensors"))) > 1
    assert isinstance(loaded.clip, ClipPair)
    assert loaded.processor.tokenizer.padding_side == "left"
    assert not loaded.model.training
    inputs = tiny.inputs((5, 2))
    with torch.no_grad():
        assert torch.equal(loaded.model(**inputs).logits, model(**inputs).logits)
    # The checkpoint's own clip is found without being passed.
    texts = ["what color is the star ?", "how many dots"]
    with prune(loaded.model, methods.DeSAP(keep=4), text=texts) as trace, torch.no_grad():
        loaded.model(**inputs)
    kept = trace.kept
    with prune(loaded.model, methods.DeSAP(keep=4), text=texts, clip=loaded.clip) as trace, torch.no_grad():
        loaded.model(**inputs)
    assert all(map(torch.equal, kept, trace.kept))


def test_processor_and_model_work_together(checkpoint):
    import numpy as np
    from PIL import Image

    loaded = hub.load(checkpoint, dtype=torch.float32)
    picture = Image.fromarray((np.random.default_rng(0).random((56, 56, 3)) * 255).astype("uint8"))
    texts = ["what <image> is the star ?", "how <image> many"]
    inputs = loaded.processor(images=[picture] * 2, text=texts, padding=True, return_tensors="pt")
    assert inputs["attention_mask"][1, 0] == 0
    assert inputs["attention_mask"][1, -1] == 1
    with prune(loaded.model, methods.FastV(keep=3)) as trace, torch.no_grad():
        loaded.model(**inputs)
    assert [len(row) for row in trace.kept] == [3, 3]


@pytest.mark.parametrize("where", ["", "clip"])
def test_truncated_shard_is_refused_before_loading(copied, where):
    shard = sorted((copied / where).glob("*.safetensors"))[0]
    size = shard.stat().st_size
    for end in (size - 1, 9, 4):
        with shard.open("r+b") as file:
            file.truncate(end)
        start = time.perf_counter()
        with pytest.raises(OSError, match=rf"{shard.name} .* damaged: {end} bytes"):
            hub.load(copied)
        assert time.perf_counter() - start < 1
    shard.write_bytes(b"\x02" + b"\x00" * 7 + b"no")
    with pytest.raises(OSError, match=r"damaged: 10 bytes, .*header"):
        hub.load(copied)


def test_missing_files_are_named(copied):
    index = json.loads((copied / "model.safetensors.index.json").read_text())
    shard = sorted(set(index["weight_map"].values()))[1]
    (copied / shard).unlink()
    with pytest.raises(FileNotFoundError, match=shard):
        hub.load(copied)
    (copied / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        hub.load(copied)


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./none", "none"])
def test_missing_folder(name):
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        hub.load(name)


def test_repository_outside_the_cache_says_what_to_run():
    start = time.perf_counter()
    with pytest.raises(OSError, match=r"run: hf download nobody/nothing$"):
        hub.load("nobody/nothing")
    assert time.perf_counter() - start < 1


def test_repository_in_the_cache(checkpoint, tmp_path, monkeypatch):
    from huggingface_hub import constants, file_download

    repo = tmp_path / "models--someone--tiny"
    shutil.copytree(checkpoint, repo / "snapshots" / "abc")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(file_download.constants, "HF_HUB_CACHE", str(tmp_path))
    assert checkpoints.locate("someone/tiny") == repo / "snapshots" / "abc"
    next((repo / "snapshots" / "abc").glob("*.safetensors")).unlink()
    with pytest.raises(FileNotFoundError, match=r"missing .* run: hf download someone/tiny"):
        checkpoints.locate("someone/tiny")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"patch": 7}, "patch_size: 7 and 14"),
        ({"side": 70}, r"grid of patches: \(5, 5\) and \(4, 4\)"),
        ({"extra": 0}, "visual tokens of an image: 15 and 16"),
    ],
)
def test_processor_that_does_not_fit_is_refused(model, tiny, change, match):
    with pytest.raises(ValueError, match=match):
        hub.check_processor(model, build_processor(tiny, **change))


def test_wrong_image_token_and_length_are_refused(tiny, clip):
    processor = build_processor(tiny)
    with pytest.raises(ValueError, match="image token id: 63 and 62"):
        hub.check_processor(tiny.model(image_token_index=62), processor)
    with pytest.raises(ValueError, match="image_seq_length is 576, the vision tower gives 16"):
        hub.check_processor(tiny.model(image_seq_length=576), processor)
