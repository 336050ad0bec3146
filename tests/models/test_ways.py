"""The ways in which people call a model, each beside the plain call under the same method.

`test_families` holds what a pruned call gives; this matrix, families times ways, holds that no way of calling changes it,
and that none goes past the hooks unseen. What wraps a model is in `test_wrapped`, other threads' calls in `test_gate`.
"""

from __future__ import annotations

import copy

import pytest
import torch
from transformers.generation import BaseStreamer

from lib.models.borrowed import BEAMS_REPEAT_IMAGES
from lib.models.prune import prune
from lib.pruning import methods
from testkit.common import close
from testkit.families import IMAGE, VIDEO, generate, inputs_of, model_of, single
from testkit.ways import METHODS, all_methods, copied, every_method, every_row, forward, in_threads, same

WORDS = {"suppress_tokens": [IMAGE, VIDEO, 60, 61], "eos_token_id": None, "max_new_tokens": 3}


class Heard(BaseStreamer):
    """Collects what `generate` sends, prompt first."""

    def __init__(self):
        self.parts, self.ended = [], False

    def put(self, value):
        self.parts.append(value.reshape(-1))

    def end(self):
        self.ended = True


@every_row
@every_method
def test_sampling(row, method):
    """Drawn from the best token alone, in several copies of a row, words are the greedy ones."""
    if BEAMS_REPEAT_IMAGES and row.name in ("internvl", "qwen3_vl_video"):
        pytest.skip(
            "transformers 5.17 repeats tile by tile, and cannot repeat a video whose frames stand apart"
        )
    model, inputs = model_of(row), inputs_of(row)
    with prune(model, method) as trace:
        greedy = model.generate(**inputs, **WORDS, do_sample=False)
        kept = trace.kept
        drawn = model.generate(**inputs, **WORDS, do_sample=True, top_k=1, num_return_sequences=2)
    assert torch.equal(drawn, greedy.repeat_interleave(2, 0))
    assert all(map(torch.equal, trace.kept[:: 2 if BEAMS_REPEAT_IMAGES else 1], kept))


@every_row
@every_method
def test_candidates(row, method):
    """Words that a draft without an image proposes, or that the prompt holds already: checked in one forward, never chosen by."""
    model, inputs = model_of(row), single(row, inputs_of(row), 1)
    ways = [{"assistant_model": model_of(row, "eager")}, {"prompt_lookup_num_tokens": 3}]
    with prune(model, method) as trace:
        greedy = model.generate(**inputs, **WORDS, do_sample=False)
        kept = trace.kept[0]
        for way in ways:
            assert torch.equal(model.generate(**inputs, **WORDS, **way, do_sample=False), greedy)
            assert torch.equal(trace.kept[0], kept)


@every_row
@every_method
def test_streamer_in_a_thread(row, method):
    """The usual way to show words as they come: `generate` runs in a thread, the context is the caller's."""
    model, inputs = model_of(row), single(row, inputs_of(row), 1)
    with prune(model, method) as trace:
        plain = model.generate(**inputs, **WORDS, do_sample=False)[0]
        kept, heard = trace.kept, Heard()
        in_threads(lambda: model.generate(**inputs, **WORDS, do_sample=False, streamer=heard))
    assert heard.ended
    assert torch.equal(torch.cat(heard.parts), plain)
    assert torch.equal(trace.kept[0], kept[0])


@every_row
@every_method
def test_two_threads_with_two_models(row, method):
    models = [model_of(row), model_of(row, "eager")]
    inputs = inputs_of(row)
    plain = [forward(model, inputs, method) for model in models]
    found = [None, None]

    def work(place):
        for _ in range(3):
            found[place] = forward(models[place], inputs, method)

    in_threads(lambda: work(0), lambda: work(1))
    assert all(map(same, found, plain))


@every_row
@all_methods
def test_two_threads_with_one_model(row, method):
    """Two callers in one context: what a call is at is its thread's own. Grids are the same, as Qwen-VL itself keeps the
    latest image's offset of position ids in the model."""
    model = model_of(row)
    asked = [single(row, inputs_of(row, seed=seed), 1) for seed in (3, 4)]
    with prune(model, method):
        plain = [generate(model, inputs) for inputs in asked]
        found = [None, None]

        def work(place):
            found[place] = generate(model, asked[place])

        in_threads(lambda: work(0), lambda: work(1))
    for ours, theirs in zip(found, plain, strict=True):
        assert torch.equal(ours.sequences, theirs.sequences)
        assert all(map(torch.equal, ours.logits, theirs.logits))


@every_row
@pytest.mark.parametrize("layer", [0, 2])
def test_autocast_that_keeps_everything_changes_no_bit(row, layer):
    model, inputs = model_of(row), inputs_of(row)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        plain = model(**inputs).logits
        with prune(model, methods.NoPruning(layer=layer)):
            ours = model(**inputs).logits
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, plain)


@every_row
@all_methods
def test_autocast(row, method):
    """Scores are float32, and those of a run without it but for the rounding of what the model computes."""
    model, inputs = model_of(row), inputs_of(row)
    _, plain = forward(model, inputs, method)
    with torch.autocast("cpu", torch.bfloat16):
        logits, trace = forward(model, inputs, method)
    assert logits.isfinite().all()
    assert all(scores.dtype == torch.float32 for scores in trace.scores.values())
    if method in METHODS:  # what a second cut sees depends on a first choice that rounding may turn
        for name, scores in trace.scores.items():
            torch.testing.assert_close(scores, plain.scores[name], atol=0.05, rtol=0.05, equal_nan=True)
    assert [len(kept) for kept in trace.kept] == [len(kept) for kept in plain.kept]


def gradients(model, inputs, method=None, seed=None):
    """Logits, and the gradient of the text's loss in one projection of each tower and in the pixels."""
    pixels = next(name for name in ("pixel_values", "pixel_values_videos") if name in inputs)
    inputs = inputs | {pixels: inputs[pixels].clone().requires_grad_()}
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels[:, :-2] = -100  # the answer: the last two words
    if seed is not None:
        torch.manual_seed(seed)
    if method is None:
        out = model(**inputs, labels=labels)
    else:
        with prune(model, method):
            out = model(**inputs, labels=labels)
    weights = [model.model.language_model.layers[number].self_attn.k_proj.weight for number in (0, 3)]
    found = torch.autograd.grad(out.loss, [inputs[pixels], *weights])
    return out.logits.detach(), found


@every_row
def test_gradients(row):
    """Those of a model that keeps everything are the model's own; a pruned one's reach pixels and both ends of the decoder."""
    model, inputs = model_of(row), inputs_of(row)
    _, plain = gradients(model, inputs)
    for layer in (0, 2):
        for ours, theirs in zip(
            gradients(model, inputs, methods.NoPruning(layer=layer))[1], plain, strict=True
        ):
            close(ours, theirs, 1e-5 * max(1.0, theirs.abs().max().item()))
    for method in METHODS:
        found = gradients(model, inputs, method)[1]
        assert all(values.isfinite().all() and values.any() for values in found)


@every_row
def test_dropout(row):
    """In training mode the same numbers are drawn, whatever looks on."""
    model, inputs = copied(row).train(), inputs_of(row)
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.3
    plain = gradients(model, inputs, seed=0)[0]
    assert not torch.equal(gradients(model, inputs, seed=1)[0], plain)
    whole = methods.FastV(keep=1.0)
    assert torch.equal(gradients(model, inputs, whole, seed=0)[0], plain)
    for method in METHODS:
        assert gradients(model, inputs, method, seed=0)[0].isfinite().all()


@every_row
@every_method
def test_copies(row, method):
    """A copy would keep the hooks for ever, so none is made inside; those from before and after are plain models."""
    inputs, before = inputs_of(row), copied(row)
    with torch.no_grad():
        plain = model_of(row)(**inputs).logits
        model = copied(row)
        with prune(model, method):
            pruned = model(**inputs).logits
            with pytest.raises(ValueError, match="cannot be copied or pickled while it is being pruned"):
                copy.deepcopy(model)
            before.load_state_dict(model.state_dict())
        after = copy.deepcopy(model)
        assert not torch.equal(pruned, plain)
        assert torch.equal(before(**inputs).logits, plain)
        assert torch.equal(after(**inputs).logits, plain)
