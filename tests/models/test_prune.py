"""Pruned runs against models that never heard of pruning: masks instead of dropped columns, short prompts."""

import pytest
import torch

from lib.models.prune import prune
from lib.pruning import methods
from tests.models.common import EVERY_OTHER, METHODS, RAGGED, TEXT, close, logits_of


def hidden_by_masks(model, inputs, kept, layer, positions):
    """The same answer with nothing dropped, from a layer loop of its own.

    Every column goes through every layer, but from `layer` on the dropped ones are masked as keys. Returns
    the logits [B, S, V] and the columns that stay.
    """
    core, decoder = model.model, model.model.language_model
    ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
    batch, length = ids.shape
    features = core.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2][:, 1:]
    hidden = decoder.embed_tokens(ids)
    hidden[ids == 63] = core.multi_modal_projector(features).flatten(0, 1)
    stays = torch.ones(batch, length, dtype=torch.bool)
    for row in range(batch):
        columns = (ids[row] == 63).nonzero()[:, 0]
        stays[row, columns] = False
        stays[row, columns[list(kept[row % len(kept)])]] = True
    places = torch.arange(length).expand(batch, -1)
    moved = places - (~stays).long().cumsum(1) if positions == "renumbered" else places
    causal = torch.ones(length, length).tril().bool()
    lowest = torch.finfo(torch.float32).min
    for number, block in enumerate(decoder.layers):
        late = number >= layer
        seen = causal & (real & stays if late else real)[:, None, None]
        mask = torch.zeros(batch, 1, length, length).masked_fill(~seen, lowest)
        rotary = decoder.rotary_emb(hidden, position_ids=moved if late else places)
        hidden = block(hidden, attention_mask=mask, position_embeddings=rotary)
    return model.lm_head(decoder.norm(hidden)), stays & real


@pytest.mark.parametrize(
    "method",
    [
        methods.NoPruning(),
        methods.NoPruning(layer=2),
        methods.DeSAP(keep=16),
        methods.AdaptPrune(keep=16),
        methods.FastV(keep=16, positions="renumbered"),
        methods.ClsTopK(keep=16),
    ],
    ids=lambda method: f"{method.name}{method.layer}",
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_keeping_everything_changes_no_bit(any_model, tiny, pair, method, side):
    inputs = tiny.inputs((5, 2), side)
    assert torch.equal(
        logits_of(any_model, inputs, method, text=TEXT, clip=pair), logits_of(any_model, inputs)
    )
    if side == "left":
        plain = tiny.greedy(any_model, inputs)
        with prune(any_model, method, text=TEXT, clip=pair) as trace:
            ours = tiny.greedy(any_model, inputs)
        assert torch.equal(plain.sequences, ours.sequences)
        assert all(map(torch.equal, plain.logits, ours.logits))
        assert trace.lengths == [inputs["input_ids"].shape[1]] * tiny.layers


@pytest.mark.parametrize("positions", ["original", "renumbered"])
@pytest.mark.parametrize("layer", [0, 1, 2, 3])
@pytest.mark.parametrize("side", ["left", "right"])
def test_dropping_equals_masking(any_model, tiny, layer, positions, side):
    inputs = tiny.inputs((5, 2, 7), side)
    kept = (EVERY_OTHER,) if layer % 2 else (*RAGGED, (5, 6, 7, 8))
    method = tiny.Fixed(kept=kept, layer=layer, positions=positions)
    logits = logits_of(any_model, inputs, method)
    with torch.no_grad():
        expected, stays = hidden_by_masks(any_model, inputs, kept, layer, positions)
    close(logits[stays], expected[stays])
    dropped = (inputs["input_ids"] == tiny.image) & ~stays
    assert dropped.any()
    assert not logits[dropped].any()
    full = logits_of(any_model, inputs)
    assert (logits - full)[stays].abs().max() > 0.1
    with prune(any_model, method), torch.no_grad():
        close(any_model(**inputs, use_cache=False).logits, logits)


@pytest.mark.parametrize("positions", ["original", "renumbered"])
@pytest.mark.parametrize("layer", [0, 2])
def test_no_mask_and_no_cache(any_model, tiny, layer, positions):
    """Gaps in the position ids must not be read as the seams of packed sequences."""
    inputs = tiny.inputs((5,))
    method = tiny.Fixed(kept=(EVERY_OTHER,), layer=layer, positions=positions)
    logits = logits_of(any_model, inputs, method)
    inputs.pop("attention_mask")
    close(logits_of(any_model, inputs | {"use_cache": False}, method), logits)
    close(logits_of(any_model, inputs | {"use_cache": True}, method), logits)


@pytest.mark.parametrize("positions", ["original", "renumbered"])
def test_blind_equals_masking(any_model, tiny, positions):
    inputs = tiny.inputs((5, 2))
    for layer in (0, 2):
        logits = logits_of(any_model, inputs, methods.Blind(positions=positions, layer=layer))
        with torch.no_grad():
            expected, stays = hidden_by_masks(any_model, inputs, ((),), layer, positions)
        close(logits[stays], expected[stays])


def test_renumbered_equals_a_prompt_born_short(any_model, tiny):
    inputs = tiny.inputs((5,))
    core = any_model.model
    method = tiny.Fixed(kept=(EVERY_OTHER,), positions="renumbered")
    with torch.no_grad():
        features = core.get_image_features(inputs["pixel_values"]).pooler_output[0]
        words = core.language_model.embed_tokens(inputs["input_ids"][0])
        short = torch.cat([words[:2], features[list(EVERY_OTHER)], words[18:]])[None]
    born = tiny.greedy(any_model, {"inputs_embeds": short})
    with prune(any_model, method) as trace:
        ours = tiny.greedy(any_model, inputs)
    assert torch.equal(ours.sequences[:, 23:], born.sequences)
    for left, right in zip(ours.logits, born.logits, strict=True):
        assert torch.equal(left, right)
    assert trace.lengths == [short.shape[1]] * tiny.layers


def hooks_and_configs(model):
    kinds = ("_forward_pre_hooks", "_forward_hooks")
    return {
        name: (tuple(len(getattr(module, kind)) for kind in kinds), id(getattr(module, "config", None)))
        for name, module in model.named_modules()
    }


@pytest.mark.parametrize("method", [METHODS[0], METHODS[2]], ids=lambda method: method.name)
def test_nothing_is_left_behind_after_an_exception(model, tiny, pair, method):
    inputs = tiny.inputs((5, 2))
    plain = logits_of(model, inputs)
    model.model.language_model(inputs_embeds=torch.zeros(1, 2, 32), output_hidden_states=True)
    before = hooks_and_configs(model)

    def interrupted():
        with prune(model, method, text=TEXT, clip=pair), torch.no_grad():
            model(**inputs)
            assert hooks_and_configs(model) != before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert hooks_and_configs(model) == before
    with pytest.raises(ValueError, match="unpack"), prune(model, method, text=TEXT, clip=pair):
        model(**(inputs | {"pixel_values": torch.zeros(2, 3, 3)}))
    assert hooks_and_configs(model) == before
    with (
        pytest.raises(ValueError, match="saliency_layer"),
        prune(model, methods.DeSAP(keep=3, saliency_layer=7), text=TEXT, clip=pair),
    ):
        pass
    assert hooks_and_configs(model) == before
    assert torch.equal(logits_of(model, inputs), plain)
