"""What an input and a choice have to be, read from the device in one go: nothing else of a prefill stops it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lib.models.choosing import Decision
from lib.models.refusals import told_counts
from lib.models.trace import Call


def read(
    call: Call, sizes: Sequence[int] | None, decision: Decision | None, name: str, prompt_length: object
) -> dict[str, int]:
    """Check all that waits in `call.sound` and `decision.sound`, and return it.

    Parameters
    ----------
    call : of a prefill, `visual` known.
    sizes : visual tokens of each sample, by its image; None if no image is known.
    decision : a choice to check, if there is one.
    name, prompt_length : of the method and as given to `prune`, to tell.

    Raises
    ------
    ValueError
        If rows of the prompt have other than `sizes` visual tokens, or if anything does not hold.
    """
    counts = call.visual.sum(1)
    sound = call.sound | ({} if decision is None else decision.sound)
    call.sound = {}
    found = torch.cat([counts, *(flag.to(counts)[None] for flag in sound.values())]).tolist()
    rows, flags = found[: len(counts)], dict(zip(sound, found[len(counts) :], strict=True))
    expected = rows
    if sizes is not None:  # a beam search repeats the rows of the prompt, not the images
        expected = [size for size in sizes for _ in range(max(1, len(rows) // len(sizes)))]
    if rows != expected:
        raise ValueError(told_counts(rows, expected))
    faults = {
        "prompt_length": f"prompt_length must reach behind the image, got {prompt_length}",
        "words": f"input_ids must have a word between the image and the end of the prompt, which {name} reads; where labels cover "
        "the question, prune(..., prompt_length=...) tells where it ends",
        "labels": "labels must be -100 behind columns that were dropped, as on those of the image: only the first behind the "
        "prompt has another column to predict it",
        "finite": f"scores of {name} must be finite, got NaN or infinity",
        "ascending": f"kept must be ascending and within the {max(rows)} visual tokens",
        "there": f"kept must be among the tokens that {name} left at its cut before",
        "genuine": "images must be encoded inside prune; the prompt holds other visual features than the latest",
    }
    for fault, told in faults.items():
        if not flags.get(fault, True):
            raise ValueError(told)
    call.behind = flags.get("behind", call.behind)
    return flags
