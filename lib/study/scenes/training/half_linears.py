"""Matrix products of a model's layers in bfloat16 while it is trained; all else, and all that is kept, stays float32.

Autocast turns attention and activations to bfloat16 as well, which loses on processors that have AVX512's bfloat16 products
but no AMX what the products win.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode


def pays() -> bool:
    """Whether this processor multiplies bfloat16 matrices faster than float32 ones."""
    able = torch.cpu.get_capabilities()
    return able.get("avx512_bf16", False) or able.get("amx_bf16", False)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        x, weight = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        out = functional.linear(x, weight).float()
        return out + bias if ctx.biased else out

    @staticmethod
    def backward(ctx, grad):  # pyrefly: ignore[bad-override]  # torch writes *grads of any number
        x, weight = ctx.saved_tensors
        half = grad.bfloat16()
        into_weight = (half.flatten(0, -2).T @ x.flatten(0, -2)).float()
        return (half @ weight).float(), into_weight, grad.flatten(0, -2).sum(0) if ctx.biased else None


class half_linears(TorchFunctionMode):
    """Within the block linear modules inside `.layers.` of `model` multiply in bfloat16, forward and backward.

    Inputs, outputs, weights and gradients are float32 as before; embeddings, heads and projections are untouched.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        named = model.named_modules()
        self.inside = {id(m.weight) for name, m in named if isinstance(m, nn.Linear) and ".layers." in name}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is functional.linear and id(args[1]) in self.inside and not kwargs:
            x, weight, bias = (*args, None)[:3]
            return _Linear.apply(x, weight, bias)
        return func(*args, **(kwargs or {}))
