"""What the matrix of ways to call a model shares: the methods it tries, and a pruned call beside the plain one."""

from __future__ import annotations

import copy
import threading

import pytest
import torch

from lib.models.prune import prune
from lib.pruning import methods
from testkit.families import ROWS, model_of

# A choice before the language model that reads the prompt and rewrites features, one inside that reads attention and keys, and
# one that cuts twice and looks ahead into the layer about to run.
METHODS = (
    methods.DeSAP(keep=0.5, similarity="embedding"),
    methods.AdaptPrune(keep=0.5, radius=2.0),
)
ALL = (*METHODS, methods.PyramidDrop(keep=0.3, layers=(2, 3)))
SOME = [row for row in ROWS if row.name in ("llava", "internvl", "qwen2_5_vl", "qwen3_vl")]  # a decoder each
every_row = pytest.mark.parametrize("row", ROWS, ids=str)
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
all_methods = pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)


def forward(model, inputs, method):
    """Logits and what was kept, without gradients."""
    with torch.no_grad(), prune(model, method) as trace:
        logits = model(**inputs).logits
    return logits, trace


def same(ours, plain):
    """Equal to the last bit: logits and what was kept."""
    return torch.equal(ours[0], plain[0]) and all(map(torch.equal, ours[1].kept, plain[1].kept))


def copied(row):
    """A model of this row that a test may change."""
    return copy.deepcopy(model_of(row))


def in_threads(*works):
    """Run the works at the same time and hand on the first error of any."""
    errors, gate = [], threading.Barrier(len(works))

    def run(work):
        try:
            gate.wait(60)
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if errors:
        raise errors[0]
