"""Models of a stated size with random weights: what an architecture costs does not depend on what it has learned."""

from __future__ import annotations

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from lib.models.architectures import Architecture
from lib.models.clip import ClipPair
from lib.models.embedded import END, IMAGE, PAD, START, tokenizer, vocabulary


def vision_config(sizes: Architecture) -> CLIPVisionConfig:
    """The vision tower's configuration, of one tile."""
    return CLIPVisionConfig(
        hidden_size=sizes.vision_width,
        intermediate_size=4 * sizes.vision_width,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_heads,
        image_size=sizes.grid * sizes.patch,
        patch_size=sizes.patch,
        projection_dim=sizes.joint,
    )


def llava(
    sizes: Architecture,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
) -> LlavaForConditionalGeneration:
    """A LLaVA of these sizes with random weights, in evaluation mode; on "meta" it holds no memory."""
    text = LlamaConfig(
        vocab_size=sizes.vocab,
        hidden_size=sizes.width,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        max_position_embeddings=4096,
        pad_token_id=PAD,
        bos_token_id=START,
        eos_token_id=END,
        tie_word_embeddings=False,
    )
    config = LlavaConfig(
        vision_config=vision_config(sizes).to_dict(),
        text_config=text.to_dict(),
        image_token_id=IMAGE,
        image_seq_length=sizes.grid**2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    with torch.device(device):
        model = LlavaForConditionalGeneration._from_config(config, dtype=dtype, attn_implementation=attention)
    return model.eval().requires_grad_(False)


def clip_pair(
    sizes: Architecture,
    words: list[str],
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
) -> ClipPair:
    """CLIP's text side for `llava`, with random weights and a tokenizer that knows `words`."""
    text = CLIPTextConfig(
        hidden_size=sizes.text_width,
        intermediate_size=4 * sizes.text_width,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=sizes.text_heads,
        projection_dim=sizes.joint,
        pad_token_id=PAD,
        bos_token_id=START,
        eos_token_id=END,
    )
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision_config(sizes).to_dict(), projection_dim=sizes.joint
    )
    with torch.device(device):
        clip = CLIPModel._from_config(config, dtype=dtype, attn_implementation=attention)
    return ClipPair.of(clip.eval().requires_grad_(False), tokenizer(vocabulary(words), ends=True))
