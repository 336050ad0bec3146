"""Processors from disk: every family's, without torchvision, and configurations that lack a number."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from lib.models import hub
from lib.models.prune import prune
from lib.pruning import methods
from testkit.families import PINPOINTS, ROWS, model_of
from testkit.tiny import build_tokenizer

NAMES = {  # what tokenizers of models with several kinds of placeholders know by name
    "image_token": "<image>",
    "video_token": "<video>",
    "context_image_token": "<image>",
    "start_image_token": "<s>",
    "end_image_token": "</s>",
    "vision_bos_token": "<s>",
    "vision_eos_token": "</s>",
}
QWEN = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "patch_size": 4,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "size": {"shortest_edge": 64, "longest_edge": 4096},
}
SQUARE = {"height": 56, "width": 56}
NEXT = {
    "image_processor_type": "LlavaNextImageProcessor",
    "size": {"shortest_edge": 56},
    "crop_size": SQUARE,
    "image_grid_pinpoints": PINPOINTS,
}
CLS = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
CLIP = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 56}, "crop_size": SQUARE}
# Of each family: the processor's class and own fields, and the fields of its image processor.
PROCESSORS = {
    "llava": ("LlavaProcessor", CLS, CLIP),
    "llava_next": ("LlavaNextProcessor", CLS, NEXT),
    "llava_next_video": ("LlavaNextVideoProcessor", CLS, NEXT),
    "llava_onevision": (
        "LlavaOnevisionProcessor",
        {"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
        {
            "image_processor_type": "LlavaOnevisionImageProcessor",
            "size": SQUARE,
            "image_grid_pinpoints": PINPOINTS,
        },
    ),
    "internvl": (
        "InternVLProcessor",
        {"image_seq_length": 16},
        {"image_processor_type": "GotOcr2ImageProcessor", "size": SQUARE},
    ),
    "qwen2_vl": ("Qwen2VLProcessor", {}, QWEN),
    "qwen2_5_vl": ("Qwen2_5_VLProcessor", {}, QWEN),
    "qwen3_vl": ("Qwen3VLProcessor", {}, QWEN),
}
TEMPLATE = (
    "{% for message in messages %}{% for part in message.content %}"
    "{{ '<image>' if part.type == 'image' else part.text }} {% endfor %}{% endfor %}"
)


def save(row, folder):
    """A checkpoint of this family in the files that a hub checkpoint has."""
    kind, fields, images = PROCESSORS[row.name]
    model_of(row).save_pretrained(folder)
    build_tokenizer(ends=False).save_pretrained(folder)
    words = folder / "tokenizer_config.json"
    words.write_text(json.dumps(json.loads(words.read_text()) | NAMES))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": kind} | fields))
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def picture():
    pixels = np.random.default_rng(0).random((32, 48, 3)) * 255
    return Image.fromarray(pixels.astype("uint8"))


@pytest.mark.filterwarnings(
    "ignore:__array_wrap__:DeprecationWarning"
)  # transformers 5.17 with InternVL's tiles
@pytest.mark.parametrize("row", [row for row in ROWS if row.name in PROCESSORS], ids=str)
def test_every_family_loads_and_reads_a_picture(row, tmp_path):
    """Without torchvision, too, which the processors for videos need: nothing here shows one."""
    loaded = hub.load(save(row, tmp_path))
    processor = loaded.processor
    assert type(processor).__name__ == PROCESSORS[row.name][0]
    assert processor.image_processor.__class__.__name__.endswith("Pil")
    inputs = processor(images=[picture()], text=["what <image> is the star ?"], return_tensors="pt")
    with prune(loaded.model, methods.UniformGrid(keep=0.5)) as trace, torch.no_grad():
        loaded.model(**inputs)
    visual = int((inputs["input_ids"] == processor.image_token_id).sum())
    assert 0 < len(trace.kept[0]) < visual
    talk = [
        {"role": "user", "content": [{"type": "image", "image": picture()}, {"type": "text", "text": "what"}]}
    ]
    again = processor.apply_chat_template(talk, tokenize=True, return_dict=True, return_tensors="pt")
    assert int((again["input_ids"] == processor.image_token_id).sum()) == visual


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is there")
def test_a_video_says_what_it_needs(tmp_path):
    row = next(row for row in ROWS if row.name == "qwen2_vl")
    processor = hub.load(save(row, tmp_path)).processor
    with pytest.raises(ValueError, match=r"videos need torchvision, .* pip install torchvision"):
        processor(text=["what"], videos=[np.zeros((4, 3, 32, 32))])
    with pytest.raises(ValueError, match="copy the checkpoint's files"):
        processor.save_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("file", "path", "value", "told"),
    [
        ("processor_config.json", ["patch_size"], None, "processor's patch_size must be an int, got None"),
        ("processor_config.json", ["patch_size"], 0, "processor's patch_size must be at least 1, got 0"),
        ("processor_config.json", ["patch_size"], "14", "processor's patch_size must be an int, got '14'"),
        (
            "processor_config.json",
            ["num_additional_image_tokens"],
            None,
            "processor's num_additional_image_tokens must be an int, got None",
        ),
        (
            "processor_config.json",
            ["vision_feature_select_strategy"],
            None,
            "disagree on the feature select strategy: None and default",
        ),
        (
            "preprocessor_config.json",
            ["crop_size"],
            None,
            "image processor's crop_size must be given, got None",
        ),
        (
            "config.json",
            ["vision_config", "patch_size"],
            None,
            "vision_config.patch_size must be an int, got None",
        ),
        (
            "config.json",
            ["vision_config", "image_size"],
            0,
            "vision_config.image_size must be at least 1, got 0",
        ),
        ("config.json", ["image_token_id"], None, "config.image_token_id must be an int, got None"),
    ],
)
def test_a_missing_number_is_named(file, path, value, told, tmp_path):
    folder = save(ROWS[0], tmp_path)
    stated = json.loads((folder / file).read_text())
    inner = stated
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    (folder / file).write_text(json.dumps(stated))
    with pytest.raises(ValueError, match=told):
        hub.load(folder)
