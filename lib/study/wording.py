"""Words that several pages share."""

from __future__ import annotations

from collections.abc import Iterable

from lib.study.records import installed

PACKAGES = ("torch", "transformers", "numpy", "pandas")


def listing(words: Iterable[str]) -> str:
    """Join words as English does: "a, b and c"."""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def versions(between: str = " | ") -> str:
    """Say what a page was run with: Python and `PACKAGES`."""
    return between.join(f"{name} {number}" for name, number in installed(*PACKAGES).items())
