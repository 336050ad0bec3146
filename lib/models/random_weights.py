"""Models of a stated size with random weights: what an architecture costs does not depend on what it has learned."""

from __future__ import annotations

import torch
from transformers import CLIPModel, LlavaForConditionalGeneration

from lib.models.architectures import Architecture
from lib.models.clip import ClipPair
from lib.models.embedded import clip_config, llava_config, tokenizer, vocabulary


def llava(
    sizes: Architecture,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
) -> LlavaForConditionalGeneration:
    """A LLaVA of these sizes with random weights, in evaluation mode; on "meta" it holds no memory."""
    config = llava_config(sizes, clip_config(sizes), columns=4096)
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
    with torch.device(device):
        clip = CLIPModel._from_config(clip_config(sizes), dtype=dtype, attn_implementation=attention)
    return ClipPair.of(clip.eval().requires_grad_(False), tokenizer(vocabulary(words), ends=True))
