"""What a pruned forward hands back speaks of the whole prompt: states, attention, and the prediction behind the image."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from lib.models.borrowed import CACHE, cache_of
from lib.models.prune import prune
from lib.pruning import methods
from testkit.common import RAGGED, close
from testkit.families import ROWS, generate, inputs_of, model_of

STAGED = ((1, ((0, 2, 3, 4, 7, 9, 12), (1, 2, 5, 8, 13, 14, 15))), (3, ((2, 9), (1, 15))))


def method_of(tiny, kind, positions="original"):
    if kind == "staged":
        return tiny.Cuts(cuts=STAGED, positions=positions)
    return tiny.Fixed(kept=RAGGED, layer=int(kind), positions=positions)


def stays_behind(tiny, ids, method, layer):
    """[B, S] bool, the columns that decoder layer `layer` runs on."""
    cuts = method.cuts if hasattr(method, "cuts") else ((method.layer, method.kept),)
    stays = torch.ones_like(ids, dtype=torch.bool)
    for first, kept in cuts:
        if first <= layer:
            for row in range(len(ids)):
                columns = (ids[row] == tiny.image).nonzero()[:, 0]
                stays[row, columns] = False
                stays[row, columns[list(kept[row])]] = True
    return stays


@pytest.mark.parametrize("kind", ["0", "2", "staged"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_states_and_attention_have_the_columns_of_the_prompt(tiny, clip, kind, side):
    model, inputs, seen = tiny.model(attention="eager", clip=clip), tiny.inputs((5, 2), side), []
    method, ids = method_of(tiny, kind), inputs["input_ids"]
    wanted = {"output_hidden_states": True, "output_attentions": True, "use_cache": True}
    with torch.no_grad():
        plain = model(**inputs, **wanted)
    hooks = [
        layer.register_forward_hook(lambda module, args, output: seen.append(output))
        for layer in model.model.language_model.layers
    ]
    with prune(model, method), torch.no_grad():
        out = model(**inputs, **wanted)
        [hook.remove() for hook in hooks]
        token, mask = torch.tensor([[7], [9]]), inputs["attention_mask"]
        mask = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], 1)
        step = model(input_ids=token, attention_mask=mask, **{CACHE: cache_of(out)}, **wanted)
    real, total = inputs["attention_mask"].bool(), ids.shape[1]
    assert torch.equal(model.lm_head(out.hidden_states[-1]), out.logits)
    assert [state.shape[1] for state in out.hidden_states] == [total] * (tiny.layers + 1)
    for layer, short in enumerate(seen):
        stays = stays_behind(tiny, ids, method, layer)
        state, weights = out.hidden_states[layer + 1], out.attentions[layer]
        assert weights.shape == (2, 4, total, total)
        assert not weights.movedim(1, 3)[~stays].any()
        assert not weights.movedim(3, 1).movedim(2, 3)[~stays].any()
        sums = weights.sum(-1).movedim(1, 2)[stays & real]
        close(sums, torch.ones_like(sums))
        newest = step.attentions[layer]
        assert newest.shape == (2, 4, 1, total + 1)
        assert not newest[:, :, 0].movedim(1, 2)[:, :total][~stays].any()
        assert newest[..., -1].all()
        close(newest.sum(-1), torch.ones(2, 4, 1))
        if layer + 1 < tiny.layers:
            assert not state[~stays].any()
            assert torch.equal(state[stays], short.reshape(-1, 32))
        if stays.all():  # before the first cut nothing differs
            assert torch.equal(state, plain.hidden_states[layer + 1])
            assert torch.equal(weights, plain.attentions[layer])


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.parametrize("layer", [0, 2])
def test_generated_states_of_every_family_fit_its_prompt(row, layer):
    model, inputs = model_of(row, "eager"), inputs_of(row)
    method = methods.UniformGrid(keep=0.5, layer=layer)
    with prune(model, method):
        out = generate(model, inputs, output_hidden_states=True, output_attentions=True)
    total = inputs["input_ids"].shape[1]
    for step, (states, weights) in enumerate(zip(out.hidden_states, out.attentions, strict=True)):
        queries = 1 if step else total
        assert {state.shape[1] for state in states} == {queries}
        assert {tuple(weight.shape[2:]) for weight in weights} == {(queries, total + step)}


def captioned(tiny, side="left", after=3):
    """Prompts that end with their image, and captions [B, after] as labels."""
    inputs = tiny.inputs((after, after), side, before=2)
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -after:] = inputs["input_ids"][:, -after:]
    return inputs, labels


@pytest.mark.parametrize("kind", ["0", "2", "staged"])
@pytest.mark.parametrize("positions", ["original", "renumbered"])
def test_the_first_word_behind_an_image_has_its_likelihood(any_model, tiny, kind, positions):
    """The last image column is dropped in one sample and kept in the other; generating from the image says the same."""
    (inputs, labels), method = captioned(tiny), method_of(tiny, kind, positions)
    shown = inputs | {name: inputs[name][:, :-3] for name in ("input_ids", "attention_mask")}
    with prune(any_model, method), torch.no_grad():
        out = any_model(**inputs, labels=labels)
        first = any_model(**shown, use_cache=True)
        rest = any_model(input_ids=labels[:, -3:], **{CACHE: cache_of(first)})
        said = tiny.greedy(any_model, shown, steps=1).logits[0]
    steps = torch.cat([first.logits[:, -1:], rest.logits[:, :-1]], 1)
    close(out.logits[:, -4:-1], steps, 3e-5)
    close(said, steps[:, 0], 3e-5)
    close(out.loss, cross_entropy(steps.flatten(0, 1), labels[:, -3:].flatten()))
    assert out.loss < 0.9 * torch.tensor(64.0).log() or out.loss > 1.1 * torch.tensor(64.0).log()
    stays = stays_behind(tiny, inputs["input_ids"], method, 3)
    assert not out.logits[:, :-4][~stays[:, :-4]].any()


def test_the_word_behind_a_dropped_image_is_that_of_a_prompt_born_short(any_model, tiny):
    inputs, labels = captioned(tiny)
    core = any_model.model
    for kept in (tiny.Fixed(kept=RAGGED, positions="renumbered"), methods.Blind()):
        with torch.no_grad():
            features = core.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output
            words = core.language_model.embed_tokens(inputs["input_ids"])
            lines = [
                torch.cat([line[:2], image[list(tokens)], line[-3:]])
                for line, image, tokens in zip(words, features, getattr(kept, "kept", ((), ())), strict=True)
            ]
            expected = any_model(inputs_embeds=torch.stack(lines)).logits[:, -4:-1]
            with prune(any_model, kept):
                close(any_model(**inputs, labels=labels).logits[:, -4:-1], expected)


def test_gradients_reach_what_predicts_the_first_word(model, tiny):
    inputs, labels = captioned(tiny)
    labels[:, -2:] = -100
    pixels = inputs["pixel_values"].clone().requires_grad_()
    with prune(model, tiny.Fixed(kept=RAGGED, layer=2)):
        model(**inputs | {"pixel_values": pixels}, labels=labels).loss.backward()
    assert all(row.any() for row in pixels.grad.flatten(1))


def test_labels_that_nothing_predicts_are_refused(model, tiny):
    inputs, labels = captioned(tiny)
    visual = inputs["input_ids"] == tiny.image
    method = tiny.Fixed(kept=RAGGED)
    match = "labels must be -100 behind columns that were dropped"
    with prune(model, method), torch.no_grad():
        with pytest.raises(ValueError, match=match):
            model(**inputs, labels=labels.masked_fill(visual, 5))
        first = {name: inputs[name][:, 2:] for name in ("input_ids", "attention_mask")}
        everything = inputs["input_ids"].masked_fill(
            visual, -100
        )  # words before the image are no end of the prompt
        assert torch.equal(model(**inputs, labels=everything).logits, model(**inputs, labels=labels).logits)
    with prune(model, methods.Blind()), torch.no_grad(), pytest.raises(ValueError, match=match):
        model(**inputs | first, labels=labels[:, 2:])  # nothing at all comes before the first word
    with prune(model, methods.NoPruning()), torch.no_grad():
        model(**inputs, labels=labels.masked_fill(visual, 5))
    with prune(model, method, prompt_length=18), torch.no_grad():
        few = model(**inputs, labels=labels[:, -3:], logits_to_keep=3)
        assert few.logits.shape[1] == 3
