"""Models that something is wrapped around or put into: accelerate's hooks, PEFT's adapters, compiled code.

The other half of the matrix of `test_ways`.
"""

from __future__ import annotations

import copy
import warnings
from contextlib import contextmanager

import accelerate
import peft
import pytest
import torch

from lib.models.anatomy import Anatomy
from lib.models.prune import prune
from testkit.common import close
from testkit.families import ROWS, generate, inputs_of, model_of
from testkit.ways import ALL, METHODS, SOME, copied, every_row, forward, same

SPACIOUS = {"": "cpu"}


def offloaded(model, folder):
    return accelerate.cpu_offload(model)


def on_disk(model, folder):
    return accelerate.disk_offload(model, folder)


def dispatched(model, folder):
    return accelerate.dispatch_model(model, SPACIOUS, force_hooks=True)


@pytest.mark.parametrize(
    ("row", "place"),
    [(row, place) for place in (dispatched, offloaded) for row in ROWS] + [(row, on_disk) for row in SOME],
    ids=lambda part: getattr(part, "__name__", str(part)),
)
@pytest.mark.filterwarnings(
    "ignore:You are calling .generate:UserWarning"
)  # of older transformers, which look at weights
def test_accelerate(row, place, tmp_path):
    """Weights that are brought for a call alone, by hooks of accelerate's around every forward."""
    inputs = inputs_of(row)
    placed = place(copied(row), tmp_path)
    for method in ALL:
        assert same(forward(placed, inputs, method), forward(model_of(row), inputs, method))
    if place is not dispatched and hasattr(placed.model, "image_newline"):
        return  # `generate` itself reads the newline where it lies, pruned or not
    method = METHODS[1]
    with prune(model_of(row), method):
        words = generate(model_of(row), inputs).sequences
    with prune(placed, method):
        assert torch.equal(generate(placed, inputs).sequences, words)


@contextmanager
def peft_of_another_transformers():
    """PEFT reads names that transformers is about to drop."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*gradient_checkpointing.*", FutureWarning)
        yield


def adapted(model):
    """LoRA on every projection of queries, keys and values, in both towers, with weights that are not zero."""
    names = ["q_proj", "k_proj", "v_proj", "qkv"]
    with peft_of_another_transformers():
        config = peft.LoraConfig(r=2, target_modules=names, init_lora_weights=False)
        return peft.get_peft_model(model, config).eval()


@every_row
def test_lora(row):
    """Beside and merged into the weights, an adapter gives the same."""
    inputs, wrapped = inputs_of(row), adapted(copied(row))
    merged = copy.deepcopy(wrapped).merge_and_unload().eval()
    for method in ALL:
        (ours, trace), (plain, expected) = (forward(model, inputs, method) for model in (wrapped, merged))
        assert all(map(torch.equal, trace.kept, expected.kept))
        close(ours, plain, 1e-4)
        assert not torch.equal(plain, forward(model_of(row), inputs, method)[0])


@pytest.mark.parametrize("row", SOME, ids=str)
def test_compiled_parts(row):
    """Layers compiled and run before, a projector replaced by its compiled self, a layer compiled inside the context."""
    model, inputs = copied(row), inputs_of(row)
    core = model.model
    with torch.no_grad():
        plain = model(**inputs).logits
    core.language_model.layers[2].compile(backend="eager")
    merger = Anatomy.of(model).family.projector
    parent, _, name = merger.rpartition(".")
    setattr(model.get_submodule(parent), name, torch.compile(model.get_submodule(merger), backend="eager"))
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, plain)
    for method in METHODS:
        assert same(forward(model, inputs, method), forward(model_of(row), inputs, method))
    with torch.no_grad():
        with prune(model, METHODS[1]):
            core.language_model.layers[3].compile(backend="eager")
            model(**inputs)
        assert torch.equal(model(**inputs).logits, plain)


def by_itself(model):
    model.compile(backend="eager")
    return model


def by_its_forward(model):
    model.forward = torch.compile(model.forward, backend="eager")
    return model


def by_its_core(model):
    model.model.compile(backend="eager")
    return model


def by_a_wrapper(model):
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize(
    "build", [by_itself, by_its_forward, by_its_core, by_a_wrapper], ids=lambda build: build.__name__
)
def test_compiled_models(build):
    """Compiled and run before, compiled while pruned: what the graph holds decides nothing, and no graph keeps hooks."""
    row = ROWS[0]
    inputs = inputs_of(row)
    with torch.no_grad():
        plain = model_of(row)(**inputs).logits
    model = build(copied(row))
    with torch.no_grad():
        if build is by_itself:  # the others' graphs are made after the context
            assert torch.equal(model(**inputs).logits, plain)
    for method in METHODS:
        assert same(forward(model, inputs, method), forward(model_of(row), inputs, method))
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, plain)


class Pipeline:
    """Holds a model and is none, as transformers' pipelines and `hub.Loaded` do."""

    def __init__(self, model):
        self.model = model


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
def test_what_only_wraps_is_seen_through(method):
    row = ROWS[0]
    model, inputs = model_of(row), inputs_of(row)
    plain = forward(model, inputs, method)
    assert same(forward(torch.nn.DataParallel(model), inputs, method), plain)
    with prune(Pipeline(model), method) as trace, torch.no_grad():
        assert same((model(**inputs).logits, trace), plain)
    nested = torch.nn.DataParallel(adapted(torch.compile(copied(row), backend="eager")))
    with nested.module.disable_adapter():
        assert same(forward(nested, inputs, method), plain)
