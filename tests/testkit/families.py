"""One tiny model of every accepted class, with prompts whose images differ in size: a row here is a family tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import transformers as hf

from testkit.tiny import (
    IMAGE,
    PAD,
    build_model,
    build_vision,
    text_config,
    unit_scale,
)

VIDEO = 62
SIZES = [(50, 100), (80, 60)]  # of the images that are cut into crops, (height, width)
PINPOINTS = [[56, 112], [112, 56], [112, 112]]
GRIDS = [[1, 4, 8], [1, 8, 8]]  # of the packed images: frames, rows, columns of patches
FRAMES = [[2, 4, 4], [3, 4, 4]]


@dataclass(frozen=True)
class Row:
    """`build` makes the model for an attention kernel and `visual` its images; `apart`: a word stands after each frame."""

    name: str
    build: Callable[[str], torch.nn.Module]
    visual: Callable[[torch.Generator], dict]
    placeholder: int = IMAGE
    apart: bool = False

    def __str__(self) -> str:
        return self.name


def make(kind, config, attention, seed=0):
    torch.manual_seed(seed)  # some parameters are drawn before they get their scale
    return unit_scale(kind._from_config(config, attn_implementation=attention), seed)


def llava_next(attention, kind=hf.LlavaNextForConditionalGeneration, config=hf.LlavaNextConfig):
    fields = {
        "vision_config": build_vision().to_dict(),
        "text_config": text_config(hf.LlamaConfig).to_dict(),
        "image_grid_pinpoints": PINPOINTS,
        "vision_feature_layer": -2,
        "image_token_index": IMAGE,
    }
    return make(kind, config(**fields, tie_word_embeddings=False), attention)


def llava_next_video(attention):
    return llava_next(attention, hf.LlavaNextVideoForConditionalGeneration, hf.LlavaNextVideoConfig)


def llava_onevision(attention):
    vision = hf.SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=56,
        patch_size=14,
        vision_use_head=False,
    )
    config = hf.LlavaOnevisionConfig(
        vision_config=vision.to_dict(),
        text_config=text_config(hf.Qwen2Config).to_dict(),
        image_grid_pinpoints=PINPOINTS,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    return make(hf.LlavaOnevisionForConditionalGeneration, config, attention)


def internvl(attention):
    vision = hf.InternVLVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=[56, 56],
        patch_size=[7, 7],
        use_qk_norm=True,
    )
    config = hf.InternVLConfig(
        vision_config=vision.to_dict(),
        text_config=text_config(hf.Qwen2Config).to_dict(),
        image_token_id=IMAGE,
        image_seq_length=16,
        tie_word_embeddings=False,
    )
    return make(hf.InternVLForConditionalGeneration, config, attention)


ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
PATCHES = {"patch_size": 4, "temporal_patch_size": 2, "spatial_merge_size": 2, "in_channels": 3}
IDS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": 60,
    "vision_end_token_id": 61,
    "tie_word_embeddings": False,
}


def qwen2(attention):
    vision = {"depth": 3, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, **PATCHES}
    text = text_config(hf.Qwen2VLTextConfig, rope_parameters=ROPE).to_dict()
    config = hf.Qwen2VLConfig(vision_config=vision, text_config=text, **IDS)
    return make(hf.Qwen2VLForConditionalGeneration, config, attention)


def qwen2_5(attention):
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 4,
        "out_hidden_size": 32,
        "window_size": 16,
        "fullatt_block_indexes": [0, 2],
        "tokens_per_second": 3,
        **PATCHES,
    }
    text = text_config(hf.Qwen2_5_VLTextConfig, rope_parameters=ROPE).to_dict()
    config = hf.Qwen2_5_VLConfig(vision_config=vision, text_config=text, **IDS)
    return make(hf.Qwen2_5_VLForConditionalGeneration, config, attention)


def qwen3(attention):
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 4,
        "out_hidden_size": 32,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0, 1],
        **PATCHES,
    }
    text = text_config(hf.Qwen3VLTextConfig, head_dim=8, rope_parameters=ROPE).to_dict()
    config = hf.Qwen3VLConfig(vision_config=vision, text_config=text, **IDS)
    return make(hf.Qwen3VLForConditionalGeneration, config, attention)


def one_picture(generator):
    return {"pixel_values": torch.randn(2, 3, 56, 56, generator=generator)}


def crops(generator):
    return {
        "pixel_values": torch.randn(2, 5, 3, 56, 56, generator=generator),
        "image_sizes": torch.tensor(SIZES),
    }


def tiles(generator):
    return {"pixel_values": torch.randn(3, 3, 56, 56, generator=generator)}


def patches(generator):
    grids = torch.tensor(GRIDS)
    return {
        "pixel_values": torch.randn(int(grids.prod(1).sum()), 96, generator=generator),
        "image_grid_thw": grids,
    }


def frames(generator):
    grids = torch.tensor(FRAMES)
    return {
        "pixel_values_videos": torch.randn(int(grids.prod(1).sum()), 96, generator=generator),
        "video_grid_thw": grids,
    }


ROWS = (
    Row("llava", lambda attention: build_model(attention=attention), one_picture),
    Row("llava_next", llava_next, crops),
    Row("llava_next_video", llava_next_video, crops),
    Row("llava_onevision", llava_onevision, crops),
    Row("internvl", internvl, tiles),
    Row("qwen2_vl", qwen2, patches),
    Row("qwen2_5_vl", qwen2_5, patches),
    Row("qwen2_5_vl_video", qwen2_5, frames, VIDEO),
    Row("qwen3_vl", qwen3, patches),
    Row("qwen3_vl_video", qwen3, frames, VIDEO, apart=True),
)


@cache
def model_of(row: Row, attention: str = "sdpa"):
    return row.build(attention).eval()


def visual_counts(row: Row) -> list[int]:
    """Visual tokens of the two samples, as the model itself gives them."""
    model, visual = model_of(row), row.visual(torch.Generator().manual_seed(0))
    if row.name == "internvl":
        return [16, 32]
    encode = model.model.get_video_features if row.placeholder == VIDEO else model.model.get_image_features
    with torch.no_grad():
        return [len(features) for features in encode(**visual, return_dict=True).pooler_output]


def inputs_of(row: Row, seed: int = 3, texts: tuple[int, int] = (5, 3), before: int = 2) -> dict:
    """A batch of two prompts, padded on the left, with images of different sizes."""
    generator = torch.Generator().manual_seed(seed)
    lines = []
    for count, text in zip(visual_counts(row), texts, strict=True):
        words = torch.randint(4, 40, (before + text,), generator=generator)
        if "qwen" in row.name and before:
            words[before - 1] = IDS["vision_start_token_id"]  # how transformers 5.17 counts images
        visual = torch.full((count,), row.placeholder)
        if row.apart:  # four tokens a frame, and as timestamps stand between frames
            visual = torch.nn.functional.pad(visual.view(-1, 4), (1, 0), value=41).flatten()
        lines.append(torch.cat([words[:before], visual, words[before:]]))
    longest = max(map(len, lines))
    ids, mask = torch.full((2, longest), PAD), torch.zeros(2, longest, dtype=torch.long)
    for place, line in enumerate(lines):
        ids[place, longest - len(line) :], mask[place, longest - len(line) :] = line, 1
    found = {"input_ids": ids, "attention_mask": mask, **row.visual(generator)}
    if "qwen" in row.name:
        found["mm_token_type_ids"] = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()
    return found


def single(row: Row, inputs: dict, place: int) -> dict:
    """Sample `place` of a batch by itself, without padding."""
    real = inputs["attention_mask"][place].bool()
    alone = {name: inputs[name][place][real][None] for name in ("input_ids", "attention_mask")}
    if "mm_token_type_ids" in inputs:
        alone["mm_token_type_ids"] = inputs["mm_token_type_ids"][place][real][None]
    for pixels, grid in (("pixel_values", "image_grid_thw"), ("pixel_values_videos", "video_grid_thw")):
        if grid in inputs:
            parts = inputs[pixels].split(inputs[grid].prod(1).tolist())
            return alone | {pixels: parts[place], grid: inputs[grid][place : place + 1]}
    if row.name == "internvl":
        return alone | {"pixel_values": inputs["pixel_values"].split([1, 2])[place]}
    alone["pixel_values"] = inputs["pixel_values"][place : place + 1]
    if "image_sizes" in inputs:
        alone["image_sizes"] = inputs["image_sizes"][place : place + 1]
    return alone


def generate(model, inputs, steps=3, **kwargs):
    return model.generate(
        **inputs,
        max_new_tokens=steps,
        do_sample=False,
        suppress_tokens=[IMAGE, VIDEO, 60, 61],
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
        **kwargs,
    )
