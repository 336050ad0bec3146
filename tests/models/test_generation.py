"""Generation on a pruned cache: steps, batches, beams, candidates and second turns."""

import pytest
import torch

from lib.models.borrowed import BEAMS_REPEAT_IMAGES, CACHE, cache_of
from lib.models.prune import prune
from testkit.common import EVERY_OTHER, METHODS, RAGGED, TEXT, close


@pytest.mark.parametrize("positions", ["original", "renumbered"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_cache_changes_nothing(any_model, tiny, layer, positions):
    inputs = tiny.inputs((5, 2))
    with prune(any_model, tiny.Fixed(kept=RAGGED, layer=layer, positions=positions)):
        cached = tiny.greedy(any_model, inputs)
        plain = tiny.greedy(any_model, inputs, use_cache=False)
    assert torch.equal(cached.sequences, plain.sequences)
    for left, right in zip(cached.logits, plain.logits, strict=True):
        close(left, right, 2e-5)
    lengths = [cache_of(cached).get_seq_length(number) for number in range(tiny.layers)]
    total = inputs["input_ids"].shape[1] + 3
    assert lengths == [total] * layer + [total - 12] * (tiny.layers - layer)


@pytest.mark.parametrize("positions", ["original", "renumbered"])
def test_cache_changes_nothing_with_three_cuts(any_model, tiny, positions):
    inputs = tiny.inputs((5, 2))
    cuts = ((1, ((0, 2, 3, 4, 7, 9, 12),)), (2, ((0, 2, 7, 9),)), (3, ((2, 9),)))
    with prune(any_model, tiny.Cuts(cuts=cuts, positions=positions)):
        cached = tiny.greedy(any_model, inputs)
        plain = tiny.greedy(any_model, inputs, use_cache=False)
        asked = torch.cat([cached.sequences, torch.tensor([[8, 9, 10], [4, 5, 6]])], 1)
        mask = torch.cat([inputs["attention_mask"], torch.ones(2, 7, dtype=torch.long)], 1)
        turn = {"input_ids": asked, "attention_mask": mask}
        second = tiny.greedy(any_model, turn | {CACHE: cache_of(cached)})
        whole = tiny.greedy(any_model, turn | {"pixel_values": inputs["pixel_values"]})
    assert torch.equal(cached.sequences, plain.sequences)
    for left, right in zip(cached.logits, plain.logits, strict=True):
        close(left, right, 2e-5)
    assert torch.equal(second.sequences, whole.sequences)
    close(second.logits[-1], whole.logits[-1], 2e-5)
    lengths = [cache_of(second).get_seq_length(number) for number in range(tiny.layers)]
    total = asked.shape[1] + 3
    assert lengths == [total, total - 9, total - 12, total - 14]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.name}{method.layer}")
def test_batch_equals_singles(any_model, tiny, pair, method):
    inputs = tiny.inputs((5, 2))
    with prune(any_model, method, text=TEXT, clip=pair) as trace:
        batch = tiny.greedy(any_model, inputs)
    kept, scores = trace.kept, trace.scores
    for row in range(2):
        with prune(any_model, method, text=TEXT[row], clip=pair) as alone:
            single = tiny.greedy(any_model, tiny.one_row(inputs, row))
        assert torch.equal(alone.kept[0], kept[row])
        assert torch.equal(single.sequences[0, -4:], batch.sequences[row, -4:])
        for name, values in alone.scores.items():
            close(values[0], scores[name][row])
        for left, right in zip(single.logits, batch.logits, strict=True):
            close(left[0], right[row], 3e-5)
    assert len(kept) == 2
    assert all(len(row) == (0 if method.name == "blind" else 6) for row in kept)
    assert trace.grid == (4, 4)
    assert trace.layers == tiny.layers
    assert trace.method is method


@pytest.mark.parametrize("method", [*METHODS[2:5], *METHODS[-3:-1]], ids=lambda method: method.name)
def test_right_padded_batch_equals_singles(any_model, tiny, method):
    inputs = tiny.inputs((5, 2), "right")
    with prune(any_model, method) as trace, torch.no_grad():
        batch = any_model(**inputs).logits
    kept = trace.kept
    for row in range(2):
        with prune(any_model, method) as alone, torch.no_grad():
            single = any_model(**tiny.one_row(inputs, row)).logits[0]
        assert torch.equal(alone.kept[0], kept[row])
        close(single, batch[row, : len(single)], 2e-5)


@pytest.mark.parametrize(
    "method", [METHODS[0], METHODS[2], METHODS[7], *METHODS[-3:-1]], ids=lambda method: method.name
)
def test_beam_search(any_model, tiny, pair, method):
    inputs = tiny.inputs((5, 2))
    beams = {"num_beams": 3, "length_penalty": 0.0}
    copies = 3 if BEAMS_REPEAT_IMAGES else 1
    with prune(any_model, method, text=[words for words in TEXT for _ in range(copies)], clip=pair) as trace:
        batch = tiny.greedy(any_model, inputs, **beams)
    kept = trace.kept[::copies]
    assert len(kept) == 2
    assert all(len(values) == 2 * copies for values in trace.scores.values())
    for row in range(2):
        with prune(any_model, method, text=[TEXT[row]] * copies, clip=pair) as alone:
            single = tiny.greedy(any_model, tiny.one_row(inputs, row), **beams)
        assert torch.equal(single.sequences[0, -4:], batch.sequences[row, -4:])
        assert torch.equal(alone.kept[0], kept[row])


@pytest.mark.skipif(not BEAMS_REPEAT_IMAGES, reason="an image a sample, since transformers 5.18")
def test_where_every_beam_has_its_image_a_short_text_is_refused_with_the_way_out(model, tiny):
    with (
        pytest.raises(ValueError, match=r"got 2 for 6 images; in a beam search.*num_beams times"),
        prune(model, METHODS[7], text=TEXT),
    ):
        tiny.greedy(model, tiny.inputs((5, 2)), num_beams=3)


@pytest.mark.parametrize("layer", [0, 2])
def test_prompt_lookup_equals_greedy(any_model, tiny, layer):
    inputs = tiny.inputs((9,))
    with prune(any_model, tiny.Fixed(kept=(EVERY_OTHER,), layer=layer)):
        greedy = tiny.greedy(any_model, inputs, steps=8).sequences
        assisted = tiny.greedy(any_model, inputs, steps=8, prompt_lookup_num_tokens=3).sequences
    assert torch.equal(greedy, assisted)


@pytest.mark.parametrize("positions", ["original", "renumbered"])
@pytest.mark.parametrize("layer", [0, 2])
def test_own_decode_loop_without_position_ids(any_model, tiny, layer, positions):
    inputs = tiny.one_row(tiny.inputs((5,)), 0)
    with prune(any_model, tiny.Fixed(kept=(EVERY_OTHER,), layer=layer, positions=positions)), torch.no_grad():
        auto = tiny.greedy(any_model, inputs)
        out = any_model(**inputs, use_cache=True)
        for step, token in enumerate(auto.sequences[0, -4:]):
            close(out.logits[:, -1], auto.logits[step], 2e-5)
            out = any_model(input_ids=token.view(1, 1), **{CACHE: cache_of(out)})


def test_two_caches_under_one_context(model, tiny):
    first, second = tiny.inputs((5,)), tiny.inputs((7,), seed=8)
    with prune(model, tiny.Fixed(kept=(EVERY_OTHER,), layer=1)), torch.no_grad():
        expected = [model(**inputs, use_cache=True).logits for inputs in (first, second)]
        outs = [model(**inputs, use_cache=True) for inputs in (first, second)]
        token = torch.tensor([[7]])
        for out, inputs, logits in zip(outs, (first, second), expected, strict=True):
            close(out.logits, logits)
            longer = dict(inputs)
            longer["input_ids"] = torch.cat([inputs["input_ids"], token], 1)
            longer["attention_mask"] = torch.ones_like(longer["input_ids"])
            step = model(input_ids=token, **{CACHE: cache_of(out)}).logits
            close(step[:, 0], model(**longer).logits[:, -1])


def test_second_text_turn_after_a_decoder_stage(any_model, tiny):
    inputs = tiny.inputs((5,))
    with prune(any_model, tiny.Fixed(kept=(EVERY_OTHER,), layer=2)):
        first = tiny.greedy(any_model, inputs)
        asked = torch.cat([first.sequences, torch.tensor([[8, 9, 10]])], 1)
        turn = {"input_ids": asked, "attention_mask": torch.ones_like(asked)}
        cached = tiny.greedy(any_model, turn | {CACHE: cache_of(first)})
        whole = tiny.greedy(any_model, turn | {"pixel_values": inputs["pixel_values"]})
    assert torch.equal(cached.sequences, whole.sequences)
    close(cached.logits[-1], whole.logits[-1], 2e-5)
