"""A LLaVA of the real classes, small enough for a test, its weights of unit scale so that errors show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from lib.pruning.methods import Choice, Needs

IMAGE, PAD, VOCAB, LAYERS, SIDE = 63, 0, 64, 4, 4
WORDS = [*"what color is the star how many dots are there ?".split(), *"abcdefg"]  # noqa: SIM905


def unit_scale(model, seed):
    """Default initialisation gives flat attention; this one does not."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name and weight.ndim == 1:
                noise = torch.randn(weight.shape, generator=generator) * 0.2
                weight.copy_(noise + (0.0 if name.endswith("bias") else 1.0))
            else:
                fan_in = weight[0].numel() if weight.ndim > 1 else weight.numel()
                weight.copy_(torch.randn(weight.shape, generator=generator) * 1.5 / fan_in**0.5)
    return model.eval()


def build_clip(seed=1, width=32):
    text = CLIPTextConfig(
        vocab_size=VOCAB,
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        pad_token_id=PAD,
        bos_token_id=1,
        eos_token_id=3,
    )
    vision = build_vision(width)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=20)
    return unit_scale(CLIPModel(config), seed)


def build_vision(width=32):
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=14 * SIDE,
        patch_size=14,
        projection_dim=20,
    )


def text_config(kind, **more):
    """The decoder of every tiny model: 4 layers, grouped keys."""
    return kind(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=PAD,
        bos_token_id=1,
        eos_token_id=2,
        **more,
    )


def build_model(seed=0, attention="sdpa", clip=None, **config):
    """A LLaVA with 4 decoder layers (grouped keys), 16 visual tokens and the vision tower of `clip`."""
    text = text_config(LlamaConfig)
    fields = {
        "vision_config": build_vision().to_dict(),
        "text_config": text.to_dict(),
        "image_token_index": IMAGE,
        "image_seq_length": SIDE**2,
        "vision_feature_layer": -2,
    }
    llava = LlavaConfig(**(fields | config))
    model = LlavaForConditionalGeneration._from_config(llava, attn_implementation=attention)
    unit_scale(model, seed)
    if clip is not None:
        model.model.vision_tower.load_state_dict(clip.vision_model.state_dict())
    return model


def build_tokenizer(special=("<pad>", "<s>", "<unk>", "</s>"), ends=True):
    vocab = {word: index for index, word in enumerate([*special, *WORDS])}
    vocab["<image>"] = IMAGE
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "<s> $A </s>" if ends else "<s> $A"
    core.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", vocab["<s>"]), ("</s>", vocab["</s>"])]
    )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    made = PreTrainedTokenizerFast(tokenizer_object=core, **names)
    made.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return made


def build_inputs(lengths=(5,), side="left", seed=3, before=2):
    """Prompts of `before` text tokens, the image and `lengths` more text tokens, padded on `side`."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for count in lengths:
        words = torch.randint(4, 40, (before + count,), generator=generator)
        rows.append(torch.cat([words[:before], torch.full((SIDE**2,), IMAGE), words[before:]]))
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), PAD)
    mask = torch.zeros_like(ids)
    for row, (line, words) in enumerate(zip(ids, rows, strict=True)):
        place = slice(longest - len(words), None) if side == "left" else slice(0, len(words))
        line[place], mask[row, place] = words, 1
    pixels = torch.randn(len(rows), 3, 14 * SIDE, 14 * SIDE, generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}


def one_row(inputs, row):
    """Sample `row` of a batch by itself, without padding."""
    real = inputs["attention_mask"][row].bool()
    ids = inputs["input_ids"][row][real][None]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": inputs["pixel_values"][row : row + 1],
    }


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """Keeps what it is told, so that a test can freeze a selection."""

    name: ClassVar[str] = "fixed"
    kept: tuple[tuple[int, ...], ...]
    layer: int = 0
    positions: str = "original"
    fill: float | None = None
    score: float = 0.0
    want: Needs = Needs()  # noqa: RUF009 - frozen

    def needs(self):
        return self.want

    def schedule(self, layers):
        return (self.layer,)

    def lattice(self, grid):
        return grid

    def choose(self, cues):
        kept = torch.tensor(self.kept, dtype=torch.int64).reshape(len(self.kept), -1)
        kept = kept.expand(cues.features.shape[0], -1) if len(self.kept) == 1 else kept
        scores = {"fixed": torch.full(cues.features.shape[:2], self.score)}
        features = None
        if self.fill is not None:
            features = torch.full((*kept.shape, cues.features.shape[2]), self.fill)
        return Choice(kept, scores, features)


@dataclass(frozen=True, kw_only=True)
class Spy(Fixed):
    """`Fixed`, and remembers the cues that it saw."""

    seen: list

    def choose(self, cues):
        self.seen.append(cues)
        return super().choose(cues)


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """Cuts at several layers and keeps what it is told at each; `seen` collects the cues."""

    name: ClassVar[str] = "cuts"
    cuts: tuple[tuple[int, tuple[tuple[int, ...], ...]], ...]
    positions: str = "original"
    want: Needs = Needs()  # noqa: RUF009 - frozen
    seen: list = field(default_factory=list)

    def needs(self):
        return self.want

    def schedule(self, layers):
        return tuple(layer for layer, _ in self.cuts)

    def lattice(self, grid):
        return grid

    def choose(self, cues):
        self.seen.append(cues)
        kept = torch.tensor(self.cuts[cues.stage][1])
        return Choice(kept.expand(cues.features.shape[0], -1) if len(kept) == 1 else kept)


def greedy(model, inputs, steps=4, **kwargs):
    """Greedy generation that cannot produce the placeholder id, with the logits of every step."""
    return model.generate(
        **inputs,
        max_new_tokens=steps,
        do_sample=False,
        suppress_tokens=[IMAGE],
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
        **kwargs,
    )
