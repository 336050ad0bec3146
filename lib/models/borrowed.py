"""Names of transformers that are private or that changed between the supported versions, each read here alone.

What is borrowed, and what there is to know of it between `LOWEST` and `NEWEST`:

- The cache's name in the arguments of every forward, of `generate` and of `create_causal_mask`, and in outputs:
  `past_key_values` below 5.24, `cache` from there on (the old name is translated, with a FutureWarning, until 5.40).
- `masking_utils.create_causal_mask`, by keywords.
- `mm_encoder_outputs`, by which `generate` hands encoded images to the forward, from 5.18 on. Before, the images go
  through the tower inside the first forward, and a beam search repeats them with the rows of the prompt.
- `AttentionInterface`: the registry `modeling_utils.ALL_ATTENTION_FUNCTIONS`, `eager_attention_forward` beside the class of each
  attention module, and the kernel's name in `config._attn_implementation`, kept as `_attn_implementation_internal`.
- `vision_utils.get_vision_window_index`, the order of Qwen2.5-VL's windows.
- `AutoImageProcessor` from its own module: 5.17 hides the public one where torchvision is missing, although its backend "pil"
  does without.
- `PROCESSOR_MAPPING`, a model's processor by its configuration, and how processors check their parts, see `processors`.

Where a family keeps its modules is in `lib.models.anatomy`; what its own methods are called is in `lib.models.tiles`.
"""

from __future__ import annotations

import copy
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import transformers
from packaging.version import Version
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import Cache, GenerationMixin, PreTrainedConfig
from transformers.masking_utils import create_causal_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.vision_utils import get_vision_window_index

__all__ = [
    "PROCESSOR_MAPPING",
    "AutoImageProcessor",
    "get_vision_window_index",
]  # as they are; the rest is behind functions

LOWEST, NEWEST = "5.17.0", "5.24.0"  # what `make test-versions` runs; pyproject.toml says it, too

# The keyword under which models, `generate` and masks take a cache.
CACHE = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"

# Whether a beam search sends the image of every beam through the tower, so that a row of the prompt has an image a beam.
BEAMS_REPEAT_IMAGES = not hasattr(GenerationMixin, "_supports_mm_encoder_outputs")


def warn_if_untested(version: str) -> None:
    """Warn where transformers is newer than what this study was tested with: names may have changed again."""
    if Version(version) > Version(NEWEST):
        warnings.warn(
            f"transformers {version} is newer than {NEWEST}, the newest version tested with pruning; if something fails, "
            f"install transformers=={NEWEST}",
            stacklevel=2,
        )


warn_if_untested(transformers.__version__)


def arguments(module: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a forward was called with, by name; the cache under `CACHE`."""
    bound = inspect.signature(module.forward).bind_partial(*args, **kwargs)
    found = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= found.pop(name, {})
    return found | {CACHE: cache_of(found)}


def cache_of(given: Mapping[str, Any]) -> Cache | None:
    """The cache among keyword arguments, or in an output; None without one. Callers may still use the old name."""
    for name in (CACHE, "past_key_values"):
        if given.get(name) is not None:
            return given[name]
    return None


def causal_mask(
    config: PreTrainedConfig, embeds: Tensor, mask: Tensor | None, cache: Cache | None, layer: int
) -> Tensor | BlockMask | None:
    """The mask that decoder layer `layer` gets for `embeds` [B, S, W] and the padding mask [B, T]."""
    return create_causal_mask(
        config=config, inputs_embeds=embeds, attention_mask=mask, layer_idx=layer, **{CACHE: cache}
    )


def register_kernel(name: str, kernel: Callable) -> None:
    """Make an attention function known by a name, see `with_kernel`."""
    ALL_ATTENTION_FUNCTIONS.register(name, kernel)


def kernel_name(config: PreTrainedConfig) -> str:
    """The attention implementation that modules with this config run."""
    return config._attn_implementation


def kernel_of(module: nn.Module) -> Callable:
    """The attention function that an attention module runs.

    Raises
    ------
    ValueError
        If the module is none of transformers' own, and attends in a way of its own.
    """
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if eager is None:
        raise ValueError(
            f"module is a {type(module).__name__}, which does not attend through transformers' attention interface: "
            "take off what stands in the attention's place (an adapter, say)"
        )
    return ALL_ATTENTION_FUNCTIONS.get_interface(kernel_name(module.config), eager)


def with_kernel(config: PreTrainedConfig, name: str) -> PreTrainedConfig:
    """A shallow copy that names another attention function; parts of the config are shared, not renamed."""
    copied = copy.copy(config)
    vars(copied)["_attn_implementation_internal"] = name
    return copied
