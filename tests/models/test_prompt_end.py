"""The same prompt keeps the same tokens, whatever follows it in a forward: candidates, generated words, an answer."""

import pytest
import torch

from lib.models.prune import prune
from lib.pruning import methods
from testkit.common import EVERY_OTHER, METHODS, RAGGED, close


def reads_prompt(method):
    needs = method.needs()
    return needs.attention or needs.next_attention or needs.hears


READERS = [method for method in METHODS if reads_prompt(method)]
READERS += [
    methods.DeSAP(keep=6, similarity="embedding", saliency_layer=-1),
    methods.FastV(keep=6, layer=1, positions="renumbered"),
]
every_reader = pytest.mark.parametrize("method", READERS, ids=lambda method: f"{method.name}{method.layer}")


def told(inputs, answer):
    """The prompts with an answer [B, n] behind each, and the columns at which the prompts end."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    ends = mask.shape[1] - mask.flip(1).argmax(1)
    rows = [
        torch.cat([row[:end], words, row[end:]]) for row, end, words in zip(ids, ends, answer, strict=True)
    ]
    masks = [
        torch.cat([row[:end], torch.ones_like(words), row[end:]])
        for row, end, words in zip(mask, ends, answer, strict=True)
    ]
    ids, mask = torch.stack(rows), torch.stack(masks)
    places = (mask.cumsum(1) - 1).clamp_min(
        0
    )  # as `generate` counts: DART's norms of rotated keys depend on it
    return inputs | {"input_ids": ids, "attention_mask": mask, "position_ids": places}, ends


def labels_of(inputs, ends, answer):
    labels = torch.full_like(inputs["input_ids"], -100)
    for row, end, words in zip(labels, ends, answer, strict=True):
        row[end : end + len(words)] = words
    return labels


def kept_by(model, method, inputs, run=None, **options):
    with prune(model, method, **options) as trace, torch.no_grad():
        run(inputs) if run else model(**inputs)
    return [kept.tolist() for kept in trace.kept], trace


def test_every_method_that_reads_the_prompt_is_tried():
    made = [
        methods.make(name, **({} if name in ("none", "blind") else {"keep": 6})) for name in methods.NAMES
    ]
    assert {method.name for method in made if reads_prompt(method)} <= {method.name for method in READERS}


@every_reader
@pytest.mark.parametrize("how", ["assisted", "lookup", "uncached", "sampled", "beams", "beams uncached"])
def test_generation_keeps_what_the_prompt_keeps(model, tiny, method, how):
    inputs = tiny.inputs((9,))
    inputs["input_ids"][0, -2:] = inputs["input_ids"][0, -6:-4]  # so that a look-up finds candidates
    plain, _ = kept_by(model, method, inputs)
    options = {
        "assisted": {"assistant_model": tiny.model(seed=5)},
        "lookup": {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 2},
        "uncached": {"use_cache": False},
        "sampled": {"do_sample": True, "use_cache": False},
        "beams": {"num_beams": 3},
        "beams uncached": {"num_beams": 3, "use_cache": False},
    }[how]
    greedy = {"max_new_tokens": 6, "do_sample": False, "suppress_tokens": [63], "eos_token_id": None}
    torch.manual_seed(0)
    kept, trace = kept_by(model, method, inputs, lambda given: model.generate(**given, **greedy | options))
    assert kept == plain * len(kept)  # the first transformers show a beam search an image for each beam
    if how != "beams":  # the latest forward with an image held more than the prompt
        gone = 10 if method.schedule(4)[0] == 0 else 0
        assert trace.lengths[0] + gone > inputs["input_ids"].shape[1]


@every_reader
def test_generation_says_the_same_with_candidates_and_without_a_cache(any_model, tiny, method):
    inputs = tiny.inputs((9,))
    inputs["input_ids"][0, -2:] = inputs["input_ids"][0, -6:-4]
    with prune(any_model, method):
        greedy = tiny.greedy(any_model, inputs, steps=6)
        for options in (
            {"assistant_model": tiny.model(seed=5)},
            {"prompt_lookup_num_tokens": 3},
            {"use_cache": False},
        ):
            other = tiny.greedy(any_model, inputs, steps=6, **options)
            assert torch.equal(other.sequences, greedy.sequences)
            close(other.logits[-1], greedy.logits[-1], 3e-5)


@every_reader
@pytest.mark.parametrize("side", ["left", "right"])
def test_an_answer_does_not_choose(model, tiny, method, side):
    """Told by labels or as a length, the prompts of a batch keep what each keeps alone."""
    inputs = tiny.inputs((5, 2), side)
    alone = [kept_by(model, method, tiny.one_row(inputs, row))[0][0] for row in range(2)]
    answers = torch.tensor([[[7, 8, 9], [10, 11, 12]], [[30, 31, 32], [33, 34, 35]]])
    for answer in answers:
        longer, ends = told(inputs, answer)
        labels = labels_of(longer, ends, answer)
        assert kept_by(model, method, longer | {"labels": labels})[0] == alone
        assert kept_by(model, method, longer, prompt_length=ends)[0] == alone
        assert kept_by(model, method, longer, prompt_length=ends.numpy())[0] == alone
        assert kept_by(model, method, longer, prompt_length=tuple(ends.tolist()))[0] == alone
        longer, ends = told({name: value[:1] for name, value in inputs.items()}, answer[:1])
        assert kept_by(model, method, longer, prompt_length=int(ends[0]))[0] == alone[:1]


@every_reader
def test_the_likelihood_of_an_answer_is_that_of_generating_it(any_model, tiny, method):
    inputs = tiny.inputs((5,))
    with prune(any_model, method) as trace, torch.no_grad():
        said = tiny.greedy(any_model, inputs, steps=4)
        kept = trace.kept
        answer = said.sequences[:, -4:]
        longer, ends = told(inputs, answer)
        scored = any_model(**longer, labels=labels_of(longer, ends, answer))
    assert all(map(torch.equal, trace.kept, kept))
    steps = torch.stack(said.logits, 1)
    close(scored.logits[:, -5:-1], steps, 3e-5)
    expected = torch.nn.functional.cross_entropy(steps.flatten(0, 1), answer.flatten())
    close(scored.loss, expected)


def test_choices_of_a_generation_are_made_once(any_model, tiny):
    inputs, seen = tiny.inputs((5, 2)), []
    method = tiny.Cuts(cuts=((1, RAGGED), (3, ((0, 3), (2, 15)))), seen=seen)
    with prune(any_model, method) as trace:
        tiny.greedy(any_model, inputs, use_cache=False)
        assert (len(seen), trace.pruned) == (2, 4)
        tiny.greedy(any_model, inputs, use_cache=False)
        assert (len(seen), trace.pruned) == (4, 8)
        with torch.no_grad():
            any_model(**inputs)
            any_model(**inputs)
    assert len(seen) == 8


def test_without_any_word_about_it_the_whole_input_is_the_prompt(any_model, tiny):
    inputs = tiny.inputs((5,))
    longer, _ = told(inputs, torch.tensor([[30, 31, 32]]))
    seen = []
    spy = tiny.Spy(kept=(EVERY_OTHER,), layer=1, want=methods.Needs(prompt=True, attention=True), seen=seen)
    for options in ({}, {"prompt_length": 26}, {"prompt_length": 23}):
        kept_by(any_model, spy, longer, **options)
    whole, same, short = seen
    assert torch.equal(whole.attention, same.attention)
    assert whole.prompt_valid.sum() == same.prompt_valid.sum() == 8
    assert short.prompt_valid.sum() == 5
    close(short.prompt_attention[0, :, 6], short.attention[0])
    close(whole.prompt_attention[0, :, 9], whole.attention[0])


def refuse(model, method, match, inputs, **kwargs):
    with pytest.raises(ValueError, match=match), prune(model, method, **kwargs), torch.no_grad():
        model(**inputs)


def test_ends_that_cannot_be_are_refused(model, tiny):
    inputs, fastv = tiny.inputs((5, 2)), methods.FastV(keep=6)
    for wrong in (0, -3, True, 2.5, "9", [], [3, 0], torch.tensor([4.0, 5.0])):
        refuse(model, fastv, "prompt_length must be a number", inputs, prompt_length=wrong)
    refuse(model, fastv, "one number for each of 2 samples, got 3", inputs, prompt_length=[20, 20, 20])
    refuse(model, fastv, "must not exceed the 23 columns of the input, got 24", inputs, prompt_length=24)
    refuse(model, fastv, "must reach behind the image, got 17", inputs, prompt_length=17)
    words = methods.DeSAP(keep=6, similarity="embedding")
    refuse(model, words, "a word between the image and the end of the prompt", inputs, prompt_length=[18, 23])
    labels = torch.full((2, 5), 7)
    refuse(model, fastv, r"labels must have the shape of input_ids, \(2, 23\)", inputs | {"labels": labels})
    with prune(model, fastv), pytest.raises(ValueError, match="assistant_model must be another object"):
        tiny.greedy(model, tiny.inputs((5,)), assistant_model=model)


def test_generate_is_the_models_own_again(model, tiny):
    def own(**kwargs):
        return type(model).generate(model, **kwargs)

    with prune(model, methods.FastV(keep=6)):
        tiny.greedy(model, tiny.inputs((5,)))
    assert "generate" not in vars(model)
    model.generate = own
    with prune(model, methods.FastV(keep=6)):
        tiny.greedy(model, tiny.inputs((5,)))
    assert model.generate is own
    del model.generate
