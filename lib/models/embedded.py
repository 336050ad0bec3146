"""The embedded model: a small LLaVA of the real classes, with its processor, tokenizer and CLIP pair.

Sizes are fields; the folder that `save` writes loads exactly as a hub checkpoint of `llava-hf/llava-1.5-7b-hf` does, and
holds the CLIP pair of its vision tower in the sub-folder `clip`.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from lib.models.architectures import Architecture, Sizes

# The end token must not have id 2: transformers then pools the text as the first CLIP releases did (largest id).
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<image>", "USER:", "ASSISTANT:")
PAD, UNKNOWN, START, END, IMAGE, USER, ASSISTANT = range(7)
PROMPT = "USER: <image> {question} ASSISTANT:"
CHAT_TEMPLATE = (  # gives PROMPT for one question about one image
    "{% for message in messages %}{{ 'USER: ' if message.role == 'user' else 'ASSISTANT: ' }}"
    "{% for part in message.content %}{{ '<image>' if part.type == 'image' else part.text }} {% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def vocabulary(words: list[str]) -> dict[str, int]:
    """Token ids: the special tokens, then the words in the given order."""
    return {word: index for index, word in enumerate([*SPECIAL, *words])}


def tokenizer(vocab: dict[str, int], *, ends: bool) -> PreTrainedTokenizerFast:
    """A word-level tokenizer; `ends` closes each text with the end token (the CLIP text tower's way)."""
    core = Tokenizer(WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("[?,.!]"), "isolated")]
    )
    single = "<s> $A </s>" if ends else "<s> $A"
    core.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<s>", START), ("</s>", END)]
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=77 if ends else 1024,
        padding_side="right" if ends else "left",
    )
    if not ends:
        made.add_special_tokens({"additional_special_tokens": ["<image>", "USER:", "ASSISTANT:"]})
    return made


def clip_config(sizes: Architecture, words: int = 49408, activation: str = "quick_gelu") -> CLIPConfig:
    """CLIP's configuration, its tower of one tile; `words` are in its text tower's vocabulary."""
    text = CLIPTextConfig(
        vocab_size=words,
        hidden_size=sizes.text_width,
        intermediate_size=4 * sizes.text_width,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=sizes.text_heads,
        projection_dim=sizes.joint,
        pad_token_id=PAD,
        bos_token_id=START,
        eos_token_id=END,
    )
    vision = CLIPVisionConfig(
        hidden_size=sizes.vision_width,
        intermediate_size=4 * sizes.vision_width,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_heads,
        image_size=sizes.grid * sizes.patch,
        patch_size=sizes.patch,
        projection_dim=sizes.joint,
        hidden_act=activation,
    )
    return CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=sizes.joint)


def llava_config(sizes: Architecture, clip: CLIPConfig, columns: int) -> LlavaConfig:
    """A LLaVA's configuration around `clip`'s tower; `columns` are the most that its decoder has positions for."""
    decoder = LlamaConfig(
        vocab_size=sizes.vocab,
        hidden_size=sizes.width,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        max_position_embeddings=columns,
        pad_token_id=PAD,
        bos_token_id=START,
        eos_token_id=END,
        tie_word_embeddings=False,
    )
    return LlavaConfig(
        vision_config=clip.vision_config.to_dict(),
        text_config=decoder.to_dict(),
        image_token_id=IMAGE,  # pyrefly: ignore[unexpected-keyword]  # the name that the class translates
        image_seq_length=sizes.grid**2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )


def clip_model(sizes: Sizes, vocab: int) -> CLIPModel:
    """A fresh CLIP of the given sizes."""
    return CLIPModel(clip_config(sizes.architecture(vocab), vocab, "gelu"))


def start_local(vision) -> None:
    """Start a fresh vision tower near a convolution: head h of each layer looks at the h-th neighbour.

    Position embeddings start as two-dimensional sines and cosines, query and key weights read a few of their frequencies
    and query weights turn them by the neighbour's offset (after Cordonnier et al., arXiv 1911.03584, and ConViT, arXiv
    2103.10697). All of it is free to change in training. A small ViT without this start stays with colour for long.

    Parameters
    ----------
    vision : CLIPVisionModel with eight heads of width 16.
    """
    width, heads = vision.config.hidden_size, vision.config.num_attention_heads
    if width // heads != 16 or heads != 8:
        raise ValueError(f"vision must have 8 heads of width 16, got {heads} of width {width // heads}")
    side, count = vision.config.image_size // vision.config.patch_size, width // 4
    # Four waves that look alike nowhere else on the grid: those of 12 places nearly do 22 apart.
    waves, gain = ((2.0, 1.2, 0.6, 0.25), 3.0) if side <= 12 else ((1.2, 0.94, 0.45, 0.22), 4.0)
    frequency = 2.2 * (0.05 / 2.2) ** (torch.arange(count) / (count - 1))
    place = torch.arange(side)[:, None] * frequency
    axis = torch.cat([place.sin(), place.cos()], 1)  # [side, width / 2]
    table = torch.cat([axis[:, None].expand(side, side, -1), axis[None].expand(side, side, -1)], -1)
    with torch.no_grad():
        vision.embeddings.class_embedding.mul_(0.02)
        vision.embeddings.position_embedding.weight[1:] = 0.4 * table.reshape(side * side, width)
        used = [int((frequency - wanted).abs().argmin()) for wanted in waves]
        offsets = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)]
        for layer in vision.encoder.layers:
            query, key = layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight
            for head, offset in enumerate(offsets):
                for axis_number, step in enumerate(offset):
                    for rank, index in enumerate(used):
                        sine = axis_number * 2 * count + index
                        cosine, out = sine + count, head * 16 + axis_number * 8 + rank * 2
                        turn = frequency[index] * step
                        key[out, sine] += 1.0
                        key[out + 1, cosine] += 1.0
                        query[out, sine] += gain * turn.cos()  # sin(x + turn)
                        query[out, cosine] += gain * turn.sin()
                        query[out + 1, cosine] += gain * turn.cos()  # cos(x + turn)
                        query[out + 1, sine] -= gain * turn.sin()


def llava_model(sizes: Sizes, clip: CLIPModel, vocab: int) -> LlavaForConditionalGeneration:
    """A LLaVA whose frozen tower is a copy of `clip`'s; projector and decoder are fresh."""
    model = LlavaForConditionalGeneration(llava_config(sizes.architecture(vocab), clip.config, 1024))
    model.model.vision_tower.load_state_dict(clip.vision_model.state_dict())
    model.model.vision_tower.requires_grad_(False)
    return model


def processor(sizes: Sizes, vocab: dict[str, int]) -> LlavaProcessor:
    """The processor of the embedded model."""
    image = CLIPImageProcessorPil(
        do_resize=True,
        size={"shortest_edge": sizes.image},
        crop_size={"height": sizes.image, "width": sizes.image},
        image_mean=list(MEAN),
        image_std=list(STD),
    )
    return LlavaProcessor(
        image,
        tokenizer(vocab, ends=False),
        patch_size=sizes.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )


def save(folder: Path, model, clip: CLIPModel, sizes: Sizes, vocab: dict[str, int], card: dict) -> None:
    """Write model, processor, tokenizer and the CLIP pair, weights sharded below 16 MiB, with the run's record."""
    folder = Path(folder)
    clip = copy.deepcopy(clip)
    clip.vision_model.load_state_dict(model.model.vision_tower.state_dict())
    model.save_pretrained(folder, max_shard_size="12MB")
    processor(sizes, vocab).save_pretrained(folder)
    clip.save_pretrained(folder / "clip", max_shard_size="12MB")
    tokenizer(vocab, ends=True).save_pretrained(folder / "clip")
    (folder / "training.json").write_text(json.dumps({"sizes": asdict(sizes), **card}, indent=1) + "\n")


def pixels(images) -> torch.Tensor:
    """`[B,P,P,3]` uint8 arrays to the tower's input `[B,3,P,P]`, as the processor does for images of the right size.

    A tensor stays on its device.
    """
    x = images if isinstance(images, torch.Tensor) else torch.tensor(images)
    x = x.permute(0, 3, 1, 2).float() / 255.0
    # Without non_blocking the host would wait here for all that a GPU has to do before.
    mean, std = (torch.tensor(v).view(3, 1, 1).to(x.device, non_blocking=True) for v in (MEAN, STD))
    return (x - mean) / std
