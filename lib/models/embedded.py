"""The embedded model: a small LLaVA of the real classes, with its processor, tokenizer and CLIP pair.

Sizes are fields; the folder that `save` writes loads exactly as a hub checkpoint of `llava-hf/llava-1.5-7b-hf` does, and
holds the CLIP pair of its vision tower in the sub-folder `clip`.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

try:  # transformers names the class that needs no torchvision in recent versions only
    from transformers import CLIPImageProcessorPil as ImageProcessor
except ImportError:
    from transformers import CLIPImageProcessor as ImageProcessor

# The end token must not have id 2: transformers then pools the text as the first CLIP releases did (largest id).
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<image>", "USER:", "ASSISTANT:")
PAD, UNKNOWN, START, END, IMAGE, USER, ASSISTANT = range(7)
PROMPT = "USER: <image> {question} ASSISTANT:"
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Widths and depths of the embedded model; the grid is a parameter like any other."""

    image: int = 96  # pixels a side
    patch: int = 8  # pixels a side: 12 x 12 visual tokens
    vision_width: int = 128
    vision_layers: int = 4
    text_width: int = 128
    text_layers: int = 2
    joint: int = 128  # joint image-text space
    width: int = 192  # decoder
    layers: int = 5
    head: int = 32  # width of an attention head of the decoder
    intermediate: int = 512

    @property
    def grid(self) -> int:
        return self.image // self.patch


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


def clip_model(sizes: Sizes, vocab: int) -> CLIPModel:
    """A fresh CLIP of the given sizes."""
    text = CLIPTextConfig(
        vocab_size=vocab,
        hidden_size=sizes.text_width,
        intermediate_size=4 * sizes.text_width,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=sizes.text_width // 32,
        max_position_embeddings=77,
        projection_dim=sizes.joint,
        pad_token_id=PAD,
        bos_token_id=START,
        eos_token_id=END,
    )
    vision = CLIPVisionConfig(
        hidden_size=sizes.vision_width,
        intermediate_size=4 * sizes.vision_width,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_width // 64,
        image_size=sizes.image,
        patch_size=sizes.patch,
        projection_dim=sizes.joint,
        hidden_act="gelu",
    )
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=sizes.joint
    )
    return CLIPModel(config)


def llava_model(sizes: Sizes, clip: CLIPModel, vocab: int) -> LlavaForConditionalGeneration:
    """A LLaVA whose frozen tower is a copy of `clip`'s; projector and decoder are fresh."""
    decoder = LlamaConfig(
        vocab_size=vocab,
        hidden_size=sizes.width,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.width // sizes.head,
        max_position_embeddings=1024,
        pad_token_id=PAD,
        bos_token_id=START,
        eos_token_id=END,
        tie_word_embeddings=False,
    )
    config = LlavaConfig(
        vision_config=clip.config.vision_config.to_dict(),
        text_config=decoder.to_dict(),
        image_token_id=IMAGE,
        image_seq_length=sizes.grid**2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(clip.vision_model.state_dict())
    model.model.vision_tower.requires_grad_(False)
    return model


def processor(sizes: Sizes, vocab: dict[str, int]) -> LlavaProcessor:
    """The processor of the embedded model."""
    image = ImageProcessor(
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
    """`[B,P,P,3]` uint8 arrays to the tower's input `[B,3,P,P]`, as the processor does for images of the right size."""
    x = torch.as_tensor(images).permute(0, 3, 1, 2).float() / 255.0
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
