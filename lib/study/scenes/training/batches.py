"""Batches drawn on the host ahead of a training loop, and the signal that a loop stopped at its deadline.

A batch is a function of its step alone, so neither an interruption nor the number of workers changes what is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class Paused(Exception):
    """A training stopped at its deadline, its checkpoint saved; the same call goes on from there."""

    def __init__(self, part: str, step: int, total: int) -> None:
        super().__init__(f"{part} at step {step:,} of {total:,}")
        self.part, self.step, self.total = part, step, total


class _Steps(Dataset):
    def __init__(self, draw: Callable[[int], Any]) -> None:
        self.draw = draw

    def __getitem__(self, step: int) -> Any:
        return self.draw(step)


def _unchanged(batch: Any) -> Any:
    return batch


def drawn(draw: Callable[[int], Any], steps: range, workers: int = 0) -> Iterator[Any]:
    """Yield `draw(step)` for every step in order, drawn ahead by `workers` processes, or here when that is 0.

    `draw` returns numpy arrays: those travel through pipes, whereas tensors need shared memory, scarce in containers.
    """
    loader = DataLoader(
        _Steps(draw), batch_size=None, sampler=steps, num_workers=workers, collate_fn=_unchanged
    )
    return iter(loader)


def onto(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """The array on a device; on a GPU from pinned memory, so that the host does not wait for the copy."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
