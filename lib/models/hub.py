"""Loading checkpoints of this machine: what is missing or broken is said at once, nothing is downloaded."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from lib.models.anatomy import Anatomy

if TYPE_CHECKING:
    from lib.models.clip import ClipPair


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode, its processor (padding on the left), and its CLIP pair or None."""

    model: PreTrainedModel
    processor: ProcessorMixin
    clip: ClipPair | None


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
        If model and processor disagree on the number of visual tokens, the patch size or the image token.
    """
    from lib.models.clip import ClipPair
    from lib.models.clip import load as load_clip  # clip.py itself locates its files with this module

    folder = locate(path_or_repo)
    if clip is None and (folder / "clip").is_dir():
        clip = folder / "clip"
    if isinstance(clip, (str, Path)):
        clip = locate(clip)
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    kwargs = {} if dtype is None else {"dtype": dtype}
    model = (
        AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True, **kwargs).to(device).eval()
    )
    check_processor(model, processor)
    processor.tokenizer.padding_side = "left"  # generation continues at the last column of every row
    if clip is not None and not isinstance(clip, ClipPair):
        clip = load_clip(clip, dtype=dtype, device=device)
    return Loaded(model, processor, clip)


def locate(path_or_repo: str | Path) -> Path:
    """Folder of a complete checkpoint, without touching the network.

    Raises
    ------
    OSError
        `FileNotFoundError` if there is nothing, or a file is missing; `OSError` if a weight file is cut
        short.
    """
    folder = Path(path_or_repo)
    if folder.is_dir():
        check_files(folder, "copy the folder again")
        return folder
    name = str(path_or_repo)
    remedy = f"run: hf download {name}"
    if isinstance(path_or_repo, Path) or name.count("/") != 1 or name[0] in "./~":
        raise FileNotFoundError(f"no checkpoint folder at {name}")
    config = try_to_load_from_cache(name, "config.json")
    if not isinstance(config, str):
        raise FileNotFoundError(f"{name} is not in the local hub cache; {remedy}")
    folder = Path(config).parent
    check_files(folder, remedy)
    return folder


def check_files(folder: Path, remedy: str) -> None:
    """Refuse a folder without config.json, or with a weight file that is absent or not as long as it says."""
    index = folder / "model.safetensors.index.json"
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"config.json is missing in {folder}; {remedy}")
    shards = ["model.safetensors"]
    if index.is_file():
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise FileNotFoundError(f"{', '.join(missing)} missing in {folder}; {remedy}")
    for shard in shards:
        actual, expected = (folder / shard).stat().st_size, _stated_size(folder / shard)
        if actual != expected:
            stated = "an unreadable header" if expected is None else f"{expected} bytes by its header"
            raise OSError(f"{shard} in {folder} is damaged: {actual} bytes, {stated}; {remedy}")


def _stated_size(path: Path) -> int | None:
    """Size in bytes that the header of a safetensors file implies; None if the header itself is cut or
    broken.

    The file is: header length as 8 bytes little-endian, a JSON header with the offsets of every tensor, the
    data.
    """
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            return None
        (length,) = struct.unpack("<Q", prefix)
        if length > path.stat().st_size:
            return None
        header = file.read(length)
    try:
        tensors = json.loads(header)
    except ValueError:
        return None
    ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
    return 8 + length + max(ends, default=0)


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
    rows, columns = anatomy.grid
    pairs = [
        ("patch_size", processor.patch_size, config.vision_config.patch_size),
        (
            "feature select strategy",
            processor.vision_feature_select_strategy,
            config.vision_feature_select_strategy,
        ),
    ]
    height, width = _image_size(processor.image_processor)
    if height is not None:
        grid = (height // processor.patch_size, width // processor.patch_size)
        extra = processor.num_additional_image_tokens - 1  # the [CLS] that "default" takes off again
        pairs.append(("grid of patches", grid, (rows, columns)))
        pairs.append(("visual tokens of an image", grid[0] * grid[1] + extra, rows * columns))
    return pairs


def _image_size(image_processor) -> tuple[int | None, int | None]:
    """(height, width) of the processed image, or (None, None) where it depends on the image."""
    cropped = getattr(image_processor, "do_center_crop", False)
    size = image_processor.crop_size if cropped else image_processor.size
    size = dict(size) if not isinstance(size, int) else {"height": size, "width": size}
    return size.get("height"), size.get("width")
