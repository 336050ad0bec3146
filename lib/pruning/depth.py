"""Where a cut lies: constants published for a decoder of 32 layers, mapped to the decoder at hand.

The rule stands here alone and is the same for every method: a cut on entering layer c of 32 is, of L layers, one on
entering layer max(1, round(c L / 32)). Layers count from 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from lib.pruning.checks import check_integer

PUBLISHED = 32  # layers of LLaVA-1.5-7B's decoder, for which the methods' constants were published


def entering(cut: int, layers: int, of: int = PUBLISHED) -> int:
    """The layer, of ``layers``, that stands for a cut on entering layer ``cut`` of ``of``; see :func:`schedule`."""
    return schedule((cut,), layers, of)[0]


def schedule(cuts: Sequence[int], layers: int, of: int = PUBLISHED) -> tuple[int, ...]:
    """The layers, of ``layers``, that stand for cuts on entering the layers ``cuts`` of ``of``.

    Halves go to the even layer, as Python rounds. Never layer 0: what a cut inside the language model reads has to run
    first. Of several cuts each comes at least one layer after the one before, even where rounding joins them.

    Raises
    ------
    ValueError
        Cuts that do not ascend within 1..``of`` - 1, or more than ``layers`` can hold.
    """
    check_integer("layers", layers, least=1)
    check_integer("of", of, least=2)
    check_ascending("cuts", cuts, most=of - 1)
    found: list[int] = []
    for cut in cuts:
        found.append(max(1, round(cut * layers / of), *(last + 1 for last in found[-1:])))
    if found[-1] >= layers:
        raise ValueError(
            f"layers={layers} are too few for cuts={tuple(cuts)} of {of}: they fall on entering {found}, and the last is "
            f"layer {layers - 1}"
        )
    return tuple(found)


def check_ascending(name: str, cuts: Sequence[int], most: int | None = None) -> tuple[int, ...]:
    """Return ``cuts``; refuse what is no tuple of distinct ascending layers from 1 on, up to ``most``."""
    if not isinstance(cuts, tuple) or not cuts:
        raise ValueError(f"{name} must be a tuple of decoder layers, got {cuts!r}")
    for cut in cuts:
        check_integer(name, cut, least=1)
    if list(cuts) != sorted(set(cuts)) or (most is not None and cuts[-1] > most):
        bound = "" if most is None else f" and stay within {most}"
        raise ValueError(f"{name} must ascend{bound}, got {cuts!r}")
    return cuts
