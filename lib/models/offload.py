"""Layers whose weights are not there: accelerate keeps them on the host or a disk and brings them for a call alone.

What such a layer is like is therefore asked by calling it. accelerate is not imported here; `_hf_hook`, which it leaves on a
module, is the one name of its that is read.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm


def elsewhere(layer: nn.Module) -> bool:
    """Whether accelerate holds the weight of `layer` for it."""
    return bool(layer.weight.is_meta) and hasattr(layer, "_hf_hook")


def device_of(layer: nn.Linear | nn.LayerNorm) -> torch.device:
    """Where `layer` computes."""
    weight = layer.weight
    if not elsewhere(layer):
        return weight.device
    with torch.no_grad():
        return layer(torch.zeros(weight.shape[-1], dtype=weight.dtype)).device


def at_home(twin: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """What the class's own forward of `twin`, a shallow copy of a module, gets; one kept in the instance belongs to the
    original and is taken off. What accelerate does before a forward is done here: inputs come to where the module computes.
    """
    vars(twin).pop("forward", None)
    hook = getattr(twin, "_hf_hook", None)
    return (args, kwargs) if hook is None else hook.pre_forward(twin, *args, **kwargs)


def scale_of(norm: nn.LayerNorm) -> Tensor:
    """The weight of a layer norm, [D] float32 on the host; without values where the whole model is without."""
    weight = norm.weight.detach()
    if elsewhere(norm):
        # Any row whose standardised entries are all far from zero.
        row = torch.where(torch.arange(len(weight)) % 2 == 0, 1.0, -1.0).to(weight.dtype)
        standard = layer_norm(row.float(), row.shape, eps=norm.eps)
        with torch.no_grad():
            answers = [norm(part).float() for part in (row, -row)]  # their difference is free of the bias
        weight = (answers[0] - answers[1]) / 2 / standard.to(answers[0].device)
    return weight.float() if weight.is_meta else weight.float().cpu()
