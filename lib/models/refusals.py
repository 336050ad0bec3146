"""Inputs that cannot be pruned rightly: one error each, with the true reason and the way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from lib.models.anatomy import Anatomy
from lib.models.borrowed import CACHE

WHOLE_AGAIN = (
    "input_ids must have no visual token on a filled cache, whose columns are read already: pass only what is new, not the "
    "whole conversation again, no chunk of a prompt (prefill_chunk_size) and no new image"
)


def check_images(anatomy: Anatomy, given: Mapping) -> None:
    """Refuse arguments `given` of the whole model that bring images, or none, in a way that cannot be pruned."""
    if given.get("input_ids") is None:
        raise ValueError("input_ids must be given: inputs_embeds alone do not say which columns are visual")
    encoded = given.get("mm_encoder_outputs") or {}
    image = encoded.get("image") is not None or given.get("pixel_values") is not None
    video = encoded.get("video") is not None or given.get("pixel_values_videos") is not None
    cache = given[CACHE]
    if (image or video) and cache is not None and cache.get_seq_length():
        raise ValueError(f"{CACHE} must be empty when images come in: later chunks cannot be pruned")
    if video and (image or not anatomy.family.video):
        allowed = "images or videos in a batch, not both" if anatomy.family.video else "images, not videos"
        raise ValueError(f"pixel_values_videos cannot be pruned here: {anatomy.name} takes {allowed}")
    for output in encoded.values():
        if output is not None and getattr(output, "last_hidden_state", None) is None:
            raise ValueError(
                "mm_encoder_outputs must come whole from this model: no chunked prefill, no own features"
            )


def check_form(mask: object, cache: object) -> None:
    """Refuse masks and caches that cannot become shorter; `mask` is as the language model gets it."""
    if getattr(cache, "is_compileable", False):
        raise ValueError(
            f"{CACHE} must be dynamic, got a {type(cache).__name__}: a static cache has one length in all layers and "
            "cannot be pruned; leave cache_implementation out"
        )
    if mask is not None and getattr(mask, "ndim", None) != 2:
        form = list(mask.shape) if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
        raise ValueError(
            f"attention_mask must be [B, S], 1 for real columns and 0 for padding, got {form}: other masks cannot become "
            "shorter with the sequence"
        )


def check_held(tower: nn.Module, pixels: Tensor) -> None:
    """Refuse an offloaded tower that is to interpolate its position embeddings: transformers reads them where they lie."""
    if not pixels.is_meta and any(weight.is_meta for weight in tower.embeddings.parameters()):
        raise ValueError(
            "model must hold the vision tower's embeddings to take a smaller image, and they are offloaded: keep the tower on "
            "a device (device_map), or choose a method that leaves the image as it is"
        )


def told_counts(counts: Sequence[int], expected: Sequence[int]) -> str:
    """What to say of rows with `counts` visual tokens where the images have `expected`."""
    told = f"{max(expected)} visual tokens (one image) in every row"
    if len(set(expected)) > 1:
        told = f"{list(expected)} visual tokens (one image a row)"
    told = f"input_ids must have {told}, got {list(counts)}"
    if 0 not in counts:
        return told
    return (
        f"{told}: a prompt without an image has nothing to prune; ask it outside of the context, and generate without "
        "guidance_scale, which asks one beside the prompt"
    )


def runs_of(visual: Tensor) -> list[int]:
    """Visual tokens of each row of `visual` [B, S] bool, for models that do not say which image a tile belongs to.

    Raises
    ------
    ValueError
        If a row's stand in several places.
    """
    starts = visual[:, :1].sum(1) + (visual[:, 1:] & ~visual[:, :-1]).sum(1)
    runs = starts.tolist()
    if max(runs) > 1:
        raise ValueError(
            f"input_ids must have one image a row, its visual tokens side by side; got {runs} places: several images and the "
            "frames of a video cannot be told from the tiles of one image"
        )
    return visual.sum(1).tolist()
