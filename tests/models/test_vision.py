"""What a method sees inside a model, against the tensors that the model reports itself."""

from dataclasses import replace

import pytest
import torch

from lib.models.prune import prune
from lib.pruning import methods
from testkit.common import EVERY_OTHER, METHODS, RAGGED, TEXT, close, logits_of


def test_cues_at_layer_zero(model, clip, pair, tiny):
    needs = methods.Needs(saliency_layer=-2, patches="qk", text=True, evidence=True)
    spy = tiny.Spy(kept=(EVERY_OTHER,), want=needs, seen=[])
    inputs, evidence = tiny.inputs((5, 2)), torch.rand(2, 16) > 0.5
    with prune(model, spy, text=TEXT, clip=pair, evidence=evidence), torch.no_grad():
        model(**inputs)
    (cues,) = spy.seen
    with torch.no_grad():
        tower = model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True)
    close(cues.features, tower.hidden_states[-2][:, 1:])
    assert cues.saliency.shape == (2, 4, 16)
    assert cues.saliency.dtype == torch.float32
    assert cues.patches.shape == (2, 16, 20)
    assert cues.image.shape == cues.sentence.shape == (2, 20)
    assert cues.tokens.shape == (2, 8, 20)
    assert cues.text_importance.shape == (2, 8)
    assert cues.text_valid.sum(1).tolist() == [8, 5]
    assert cues.text_special.sum(1).tolist() == [2, 2]
    assert torch.equal(cues.evidence, evidence)
    assert cues.attention is None
    assert cues.keys is None


def test_cues_of_the_neighbours(model, clip, pair, tiny):
    needs = methods.Needs(vision_keys=-2, projected=True, patches="penultimate", text=True)
    spy = tiny.Spy(kept=(EVERY_OTHER,), want=needs, seen=[])
    inputs = tiny.inputs((5, 2))
    with prune(model, spy, text=TEXT, clip=pair), torch.no_grad():
        model(**inputs)
    (cues,) = spy.seen
    with torch.no_grad():
        tower = model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True)
        close(cues.projected, model.model.multi_modal_projector(tower.hidden_states[-2][:, 1:]))
        layer = model.model.vision_tower.encoder.layers[-2]
        keys = layer.self_attn.k_proj(layer.layer_norm1(tower.hidden_states[-3]))[:, 1:]
        heads = layer.self_attn.num_heads
        close(cues.vision_keys, keys.reshape(2, 16, heads, -1).mean(2))
        joint = pair.visual_projection(model.model.vision_tower.post_layernorm(tower.hidden_states[-2]))
        close(cues.patches, joint[:, 1:])
        close(cues.image, joint[:, 0])
    with (
        pytest.raises(ValueError, match="vision_keys must be within the"),
        prune(model, tiny.Fixed(kept=(EVERY_OTHER,), want=methods.Needs(vision_keys=40))),
    ):
        pass


@pytest.mark.parametrize("kind", ["raw", "normed"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_cues_inside_the_language_model(any_model, pair, tiny, kind, side):
    needs = methods.Needs(attention=True, keys=kind, saliency_layer=-1, text=True)
    spy = tiny.Spy(kept=(EVERY_OTHER,), layer=2, want=needs, seen=[])
    inputs = tiny.inputs((5, 2), side)
    with prune(any_model, spy, text=TEXT, clip=pair), torch.no_grad():
        any_model(**inputs)
    (cues,) = spy.seen
    eager = tiny.model(attention="eager")
    eager.load_state_dict(any_model.state_dict())
    with torch.no_grad():
        out = eager(**inputs, output_attentions=True, output_hidden_states=True)
    block = any_model.model.language_model.layers[2]
    for row in range(2):
        columns = (inputs["input_ids"][row] == tiny.image).nonzero()[:, 0]
        last = inputs["attention_mask"][row].nonzero()[-1, 0]
        close(cues.features[row], out.hidden_states[2][row, columns], 2e-5)
        close(cues.attention[row], out.attentions[1][row, :, last, columns], 2e-6)
        entering = cues.features[row] if kind == "raw" else block.input_layernorm(cues.features[row])
        close(cues.keys[row], block.self_attn.k_proj(entering), 2e-5)
    assert cues.saliency.shape == (2, 4, 16)
    assert cues.tokens.shape == (2, 8, 20)


def test_rewritten_features_reach_the_projector(model, tiny):
    inputs = tiny.inputs((5,))
    method = tiny.Fixed(kept=(EVERY_OTHER,), fill=0.25)
    seen = []
    handle = model.model.multi_modal_projector.linear_1.register_forward_hook(
        lambda module, args, output: seen.append(args[0])
    )
    logits = logits_of(model, inputs, method)
    handle.remove()
    assert (seen[0][0, list(EVERY_OTHER)] == 0.25).all()
    assert not (seen[0][0, 1] == 0.25).any()
    assert (logits - logits_of(model, inputs, replace(method, fill=None))).abs().max() > 0.01


def test_random_rows_follow_their_own_content(model, tiny):
    inputs = tiny.inputs((5, 5))
    swapped = {name: value.flip(0) for name, value in inputs.items()}
    method = methods.Random(keep=5)
    kept = []
    for batch, text in ((inputs, TEXT), (swapped, TEXT[::-1]), (inputs, TEXT[::-1])):
        with prune(model, method, text=text) as trace, torch.no_grad():
            model(**batch)
        kept.append([row.tolist() for row in trace.kept])
    assert kept[0] == kept[1][::-1]
    assert kept[0] != kept[2]
    assert kept[0][0] != kept[0][1]


def test_oracle_reads_evidence(model, tiny):
    evidence = torch.zeros(2, 16, dtype=torch.bool)
    evidence[0, [3, 7]] = evidence[1, [0, 15]] = True
    with prune(model, methods.Oracle(keep=2), evidence=evidence) as trace, torch.no_grad():
        model(**tiny.inputs((5, 2)))
    assert [row.tolist() for row in trace.kept] == [[3, 7], [0, 15]]


@pytest.mark.parametrize("layer", [0, 2])
def test_no_short_layer_sees_position_ids(model, tiny, layer):
    """Flash kernels would take gaps in them for the seams of packed sequences."""
    seen = []
    handles = [
        block.self_attn.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True
        )
        for block in model.model.language_model.layers
    ]
    logits_of(model, tiny.inputs((5,)), tiny.Fixed(kept=(EVERY_OTHER,), layer=layer))
    for handle in handles:
        handle.remove()
    assert [ids is None for ids in seen] == [number >= layer for number in range(tiny.layers)]


def test_labels_and_gradients(model, tiny):
    inputs = tiny.inputs((5, 2))
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == tiny.image, -100)
    labels = labels.masked_fill(inputs["attention_mask"] == 0, -100)
    labels[:, :-3] = -100
    for layer in (0, 2):
        with prune(model, tiny.Fixed(kept=RAGGED, layer=layer)):
            out = model(**inputs, labels=labels)
            out.loss.backward()
        logits = torch.nn.functional.cross_entropy(
            out.logits[:, -4:-1].flatten(0, 1), labels[:, -3:].flatten()
        )
        torch.testing.assert_close(out.loss, logits)
        assert model.model.multi_modal_projector.linear_1.weight.grad.abs().sum() > 0
        model.zero_grad()


def test_low_precision_runs_with_float32_scores(tiny, clip, pair):
    half = tiny.model(clip=clip).to(torch.bfloat16)
    inputs = tiny.inputs((5, 2))
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    for method in (METHODS[0], METHODS[2]):
        with prune(half, method, text=TEXT, clip=pair) as trace, torch.no_grad():
            assert half(**inputs).logits.isfinite().all()
        assert trace.scores
        assert all(values.dtype == torch.float32 for values in trace.scores.values())
