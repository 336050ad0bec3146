"""Which visual tokens can a vision-language model drop? `prune` a model with one of the `methods`."""

from lib.models.prune import prune
from lib.pruning import methods

__all__ = ["methods", "prune"]
