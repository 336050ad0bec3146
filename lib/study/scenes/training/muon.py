"""Muon for the matrices of a small model, AdamW for the rest, in float32.

Jordan et al. 2024 (kellerjordan.github.io/posts/muon); scaled as in Moonlight (arXiv 2502.16982), so that both halves
share one learning rate. `torch.optim.Muon` computes in bfloat16, 6 to 30 times slower on a processor without it.
"""

from __future__ import annotations

import torch

_A, _B, _C = 3.4445, -4.7750, 2.0315  # the quintic of Jordan et al.


def orthogonal(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Push the singular values of `[M,r,c]` matrices towards one by a Newton-Schulz iteration."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum, one step for all matrices of one shape at a time.

    Parameters
    ----------
    parameters : matrices `[r,c]` of the hidden layers; embeddings and heads belong to AdamW.
    lr : learning rate, of AdamW's size.
    momentum, weight_decay : as in Moonlight.
    """

    def __init__(
        self, parameters, lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.05
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:  # pyrefly: ignore[bad-override]  # none is ever given
        """Take one step."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for (rows, columns), alike in shapes.items():
                directions = []
                for parameter in alike:
                    state = self.state[parameter]
                    if not state:
                        state["momentum"] = torch.zeros_like(parameter)
                    state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                    directions.append(parameter.grad.lerp(state["momentum"], group["momentum"]))
                scale = 0.2 * max(rows, columns) ** 0.5  # the size of an AdamW update
                for parameter, move in zip(alike, orthogonal(torch.stack(directions)), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(move, alpha=-group["lr"] * scale)
