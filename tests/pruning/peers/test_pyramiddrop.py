"""PyramidDrop: which layer it reads, and how many stay."""

from __future__ import annotations

import torch

from lib.pruning.base import Cues, Needs
from lib.pruning.methods import PyramidDrop


def test_the_layer_about_to_run_decides():
    rows = {"attention": [0.6, 0.4], "next_attention": [0.4, 0.6]}
    cues = Cues(
        grid=(1, 2),
        features=torch.zeros(1, 2, 3),
        **{name: torch.tensor([[row]]) for name, row in rows.items()},
    )
    assert PyramidDrop(keep=1).needs() == Needs(next_attention=True)
    assert PyramidDrop(keep=1).choose(cues).kept.tolist() == [[1]]
    before = PyramidDrop(keep=1, reads="before")
    assert before.needs() == Needs(attention=True)
    assert before.choose(cues).kept.tolist() == [[0]]


def test_an_eighth_gives_the_published_counts_rounded_down():
    for tokens in (576, 144, 1000, 577):
        keep = tokens // 8
        counts = PyramidDrop(keep=keep).counts(tokens, keep)
        if keep * 8 == tokens:
            assert counts == (int(0.5 * tokens), int(0.25 * tokens), int(0.125 * tokens))
    assert PyramidDrop(keep=16).counts(144, 16) == (69, 33, 16)  # 69.2 and 33.3
    assert PyramidDrop(keep=48).counts(144, 48) == (99, 69, 48)  # 99.8 and 69.2
