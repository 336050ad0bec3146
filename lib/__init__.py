"""Which visual tokens can a vision-language model drop? `prune` a model with one of the `methods`."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lib.models.prune import prune
    from lib.pruning import methods

__all__ = ["methods", "prune"]


def __getattr__(name: str) -> object:
    """Import on first use: torch and transformers take seconds, and not every command needs them."""
    if name == "prune":
        return import_module("lib.models.prune").prune
    if name == "methods":
        return import_module("lib.pruning.methods")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
