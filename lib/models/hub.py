"""Loading checkpoints of this machine: what is missing or broken is said at once, nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)

from lib.models.anatomy import Anatomy
from lib.models.checkpoints import locate
from lib.models.processors import load_processor
from lib.pruning.checks import check_integer

if TYPE_CHECKING:
    from lib.models.clip import ClipPair


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode, its processor (padding on the left), and its CLIP pair or None."""

    model: PreTrainedModel
    processor: ProcessorMixin
    clip: ClipPair | None

    def answers(self, inputs: Mapping, **kwargs: object) -> list[str]:
        """What `generate(**inputs, **kwargs)` adds to each prompt, without special tokens."""
        out = self.model.generate(**inputs, **kwargs)
        fresh = out[:, inputs["input_ids"].shape[1] :]
        return self.processor.tokenizer.batch_decode(fresh, skip_special_tokens=True)


def load(
    path_or_repo: str | Path,
    clip: str | Path | ClipPair | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> Loaded:
    """Load a vision-language model that is already on this machine.

    Parameters
    ----------
    path_or_repo : folder, or the name of a repository in the local hub cache.
    clip : folder, repository or `ClipPair` with the text side; None takes the checkpoint's own `clip/` if
        it has one.
    dtype : None keeps the stored one.
    device : where the model and the CLIP pair go.

    Raises
    ------
    OSError
        If a file is missing or cut short. Found before anything is loaded; the message has the command to
        run.
    ValueError
        If model and processor disagree on the number of visual tokens, the patch size or the image token, or one of these
        is missing.
    """
    from lib.models.clip import ClipPair
    from lib.models.clip import load as load_clip  # clip.py itself locates its files with this module

    folder = locate(path_or_repo)
    if clip is None and (folder / "clip").is_dir():
        clip = folder / "clip"
    if isinstance(clip, (str, Path)):
        clip = locate(clip)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    check_config(config)
    processor = load_processor(folder, config)
    kwargs = {} if dtype is None else {"dtype": dtype}
    model = (
        AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True, **kwargs).to(device).eval()
    )
    check_processor(model, processor)
    processor.tokenizer.padding_side = "left"  # generation continues at the last column of every row
    if clip is not None and not isinstance(clip, ClipPair):
        clip = load_clip(clip, dtype=dtype, device=device)
    return Loaded(model, processor, clip)


def check_config(config: PreTrainedConfig) -> None:
    """Refuse sizes of the vision tower from which no model can be built."""
    vision = getattr(config, "vision_config", None)
    for name in ("image_size", "patch_size", "spatial_merge_size", "temporal_patch_size"):
        size = getattr(vision, name, 1)
        for side in size if isinstance(size, (list, tuple)) else (size,):
            check_integer(f"vision_config.{name}", side, least=1)


def check_processor(model: PreTrainedModel, processor: ProcessorMixin) -> None:
    """Refuse a processor that writes another prompt than the model reads.

    Raises
    ------
    ValueError
        Naming the two values that differ.
    """
    anatomy = Anatomy.of(model)
    config = model.config
    pairs = [("image token id", processor.image_token_id, config.image_token_id)]
    if anatomy.grid is not None:
        pairs += _grid_pairs(anatomy, config, processor)
    for name, theirs, ours in pairs:
        if theirs != ours:
            raise ValueError(f"processor and model disagree on the {name}: {theirs} and {ours}")
    if anatomy.grid is not None and config.image_seq_length != anatomy.tokens:
        raise ValueError(
            f"config.image_seq_length is {config.image_seq_length}, the vision tower gives {anatomy.tokens}"
        )


def _grid_pairs(anatomy: Anatomy, config, processor: ProcessorMixin) -> list[tuple[str, object, object]]:
    """What processor and model must agree on where every image gives the same grid."""
    rows, columns = anatomy.grid  # pyrefly: ignore[not-iterable]  # called where there is one grid
    patch = check_integer("processor's patch_size", processor.patch_size, least=1)
    # The [CLS] is among them, which "default" takes off again.
    extra = check_integer(
        "processor's num_additional_image_tokens", processor.num_additional_image_tokens, least=0
    )
    pairs = [
        ("patch_size", patch, config.vision_config.patch_size),
        (
            "feature select strategy",
            processor.vision_feature_select_strategy,
            config.vision_feature_select_strategy,
        ),
    ]
    height, width = _image_size(processor.image_processor)
    if height is not None:
        grid = (height // patch, width // patch)
        pairs.append(("grid of patches", grid, (rows, columns)))
        pairs.append(("visual tokens of an image", grid[0] * grid[1] + extra - 1, rows * columns))
    return pairs


def _image_size(image_processor) -> tuple[int | None, int | None]:
    """(height, width) of the processed image, or (None, None) where it depends on the image."""
    name = "crop_size" if getattr(image_processor, "do_center_crop", False) else "size"
    size = getattr(image_processor, name)
    if not size:
        raise ValueError(f"image processor's {name} must be given, got {size!r}")
    size = dict(size) if not isinstance(size, int) else {"height": size, "width": size}
    if size.get("height") is None and size.get("width") is None:
        return None, None
    height, width = (
        check_integer(f"image processor's {name}", size.get(side), least=1) for side in ("height", "width")
    )
    return height, width
