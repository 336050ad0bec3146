"""Layers whose weights are not there: accelerate keeps them on the host or a disk and brings them for a call alone.

What such a layer is like is therefore asked by calling it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm


def device_of(layer: nn.Linear | nn.LayerNorm) -> torch.device:
    """Where `layer` computes."""
    weight = layer.weight
    if not weight.is_meta:
        return weight.device
    with torch.no_grad():
        return layer(torch.zeros(weight.shape[-1], dtype=weight.dtype)).device


def scale_of(norm: nn.LayerNorm) -> Tensor:
    """The weight of a layer norm, [D] float32 on the host; without values where the whole model is without."""
    weight = norm.weight.detach()
    if weight.is_meta:
        # Any row whose standardised entries are all far from zero.
        row = torch.where(torch.arange(len(weight)) % 2 == 0, 1.0, -1.0).to(weight.dtype)
        standard = layer_norm(row.float(), row.shape, eps=norm.eps)
        with torch.no_grad():
            answers = [norm(part).float() for part in (row, -row)]  # their difference is free of the bias
        weight = (answers[0] - answers[1]) / 2 / standard.to(answers[0].device)
    return weight.float() if weight.is_meta else weight.float().cpu()
