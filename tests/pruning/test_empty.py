"""An empty axis is refused by name, wherever a mean or a maximum over it would be no number."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lib.pruning import cues, merging, methods, selection
from lib.pruning.base import SHAPES
from lib.pruning.peers.sparsevlm import relevant_words
from lib.pruning.peers.tome import bipartite_merge
from lib.pruning.peers.vispruner import drop_duplicates
from testkit.builders import build, make_cues


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape)


PLACES = torch.zeros(1, 1, dtype=torch.int64)
JOINT = {"local": (2, 4, 8), "tokens": (2, 3, 8), "image": (2, 8), "sentence": (2, 8)}


def decoupled(**changed):
    return cues.decoupled_similarity(**{name: zeros(*shape) for name, shape in {**JOINT, **changed}.items()})


@pytest.mark.parametrize(
    ("call", "name", "axis"),
    [
        (lambda: decoupled(tokens=(2, 0, 8)), "tokens", "T"),
        (lambda: decoupled(local=(2, 0, 8)), "local", "N"),
        (lambda: decoupled(local=(0, 4, 8)), "local", "B"),
        (lambda: cues.cls_saliency(zeros(1, 0, 4)), "attention", "H"),
        (lambda: cues.cls_saliency(zeros(1, 2, 0)), "attention", "N"),
        (lambda: cues.last_query_saliency(zeros(1, 0, 4)), "attention", "H"),
        (lambda: cues.key_tokens(zeros(1, 0).bool(), zeros(1, 0), 2), "valid", "T"),
        (lambda: cues.recency_detrended(zeros(1, 0)), "attention", "N"),
        (lambda: selection.top_k(zeros(1, 0), 1), "scores", "N"),
        (lambda: selection.split_top_k(zeros(1, 0), zeros(1, 0), 1), "first", "N"),
        (lambda: selection.adaptive_nms(zeros(1, 4), zeros(1, 4, 0), (2, 2), 1), "features", "D"),
        (lambda: selection.max_min(zeros(1, 4, 0), 1), "features", "D"),
        (lambda: selection.max_min(zeros(1, 0, 4), 1), "features", "N"),
        (lambda: selection.dpp_map(zeros(1, 4), zeros(1, 4, 0), 1), "features", "D"),
        (lambda: merging.average_into_kept(zeros(1, 0, 4), PLACES), "features", "N"),
        (lambda: merging.average_into_kept(zeros(1, 4, 4), PLACES[:, :0]), "kept", "k"),
        (lambda: bipartite_merge(zeros(1, 0, 4), 1), "features", "N"),
        (lambda: drop_duplicates(zeros(1, 4, 0), 1, 1), "features", "D"),
        (
            lambda: relevant_words(zeros(1, 4, 8), zeros(1, 0, 8), zeros(1, 0).bool()),
            "prompt",
            "T",
        ),
    ],
)
def test_an_empty_axis_is_named(call, name, axis):
    with pytest.raises(ValueError, match=rf"{name} must not be empty along {axis}, got shape \[.*0.*\]"):
        call()


@pytest.mark.parametrize("name", methods.NAMES)
def test_every_method_refuses_empty_cues(name):
    method, given = build(name), make_cues()
    for cue, form in SHAPES.items():
        without = dataclasses.replace(given, **{cue: None})
        if not asks_for(method, without, cue):
            continue
        for axis in set(form) - set("BN"):
            # Tokens of the text share their axis, so all of them lose it; so do both sides of a product.
            empty = {
                other: getattr(given, other).narrow(SHAPES[other].index(axis), 0, 0)
                for other in SHAPES
                if axis in SHAPES[other]
            }
            with pytest.raises(ValueError, match=f"must not be empty along .*{axis}"):
                method.choose(dataclasses.replace(given, **empty))


def asks_for(method, without, cue) -> bool:
    try:
        method.choose(without)
    except ValueError as error:
        return f"needs cues.{cue}" in str(error)
    return False
