"""Ways to launch a piece of work, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import torch
from torch import nn
from transformers import DynamicCache

LAUNCHES = ("eager", "compile", "graph")
Work = Callable[[], object]


@contextmanager
def shrinking(layers: Sequence[nn.Module], lengths: Sequence[int]) -> Iterator[None]:
    """Let the sequence become shorter on entering layers, without any choice: its first columns stay.

    Only for models without an explicit mask. This is what a cut costs at best.
    """
    if len(lengths) != len(layers) or any(b > a for a, b in pairwise(lengths)):
        raise ValueError(f"lengths must descend over {len(layers)} layers, got {list(lengths)}")

    def enter(length: int, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if kwargs.get("attention_mask") is not None:
            raise ValueError("attention_mask must be absent where the sequence shrinks: use the sdpa backend")
        rotary = tuple(part[:, :length] for part in kwargs["position_embeddings"])
        return (args[0][:, :length], *args[1:]), kwargs | {
            "position_embeddings": rotary,
            "position_ids": None,
        }

    hooks = [
        layer.register_forward_pre_hook(partial(enter, length), with_kwargs=True)
        for layer, length in zip(layers, lengths, strict=True)
        if length < lengths[0]
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def graphed(work: Work) -> Work:
    """Capture work in a CUDA graph, which launches all its kernels at once; returns the replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = work()

    def replay(kept=kept) -> None:  # what the graph writes to must stay alive
        graph.replay()

    return replay


def held(cache: DynamicCache) -> int:
    """Bytes that the keys and values of a cache hold."""
    return sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))
