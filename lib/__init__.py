"""Which visual tokens can a vision-language model drop? `prune` a model with one of the `methods`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lib.models.prune import prune
    from lib.pruning import methods

__all__ = ["methods", "prune"]


def __getattr__(name: str) -> object:
    """Import on first use: torch and transformers take seconds, and not every command needs them."""
    if name == "prune":
        from lib.models.prune import prune

        return prune
    if name == "methods":
        from lib.pruning import methods

        return methods
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
