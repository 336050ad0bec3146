"""Pruned runs against models that never heard of pruning: masks instead of dropped columns, short prompts."""

from contextlib import ExitStack

import pytest
import torch

from lib.models.borrowed import cache_of
from lib.models.prune import prune
from lib.pruning import methods
from testkit.common import EVERY_OTHER, METHODS, RAGGED, TEXT, close, logits_of

RAGGED_WITHIN = ((0, 2, 7, 9), (1, 2, 14, 15))


def hidden_by_masks(model, inputs, cuts, positions):
    """The same answer with nothing dropped, from a layer loop of its own.

    Every column goes through every layer, but from the layer of each of `cuts` (layer, kept) on the dropped ones are masked
    as keys. Returns the logits [B, S, V] and the columns that stay to the end.
    """
    core, decoder = model.model, model.model.language_model
    ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
    batch, length = ids.shape
    features = core.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2][:, 1:]
    hidden = decoder.embed_tokens(ids)
    hidden[ids == 63] = core.multi_modal_projector(features).flatten(0, 1)
    causal = torch.ones(length, length).tril().bool()
    lowest = torch.finfo(torch.float32).min
    places = torch.arange(length).expand(batch, -1)
    stays, cuts = torch.ones(batch, length, dtype=torch.bool), dict(cuts)
    for number, block in enumerate(decoder.layers):
        if number in cuts:
            kept, stays = cuts[number], torch.ones(batch, length, dtype=torch.bool)
            for row in range(batch):
                columns = (ids[row] == 63).nonzero()[:, 0]
                stays[row, columns] = False
                stays[row, columns[list(kept[row % len(kept)])]] = True
        moved = places - (~stays).long().cumsum(1) if positions == "renumbered" else places
        seen = causal & (real & stays)[:, None, None]
        mask = torch.zeros(batch, 1, length, length).masked_fill(~seen, lowest)
        rotary = decoder.rotary_emb(hidden, position_ids=moved)
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
        methods.PyramidDrop(keep=16),
        methods.SparseVLM(keep=16),
        methods.Downsample(keep=16),
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
        expected, stays = hidden_by_masks(any_model, inputs, [(layer, kept)], positions)
    close(logits[stays], expected[stays])
    dropped = (inputs["input_ids"] == tiny.image) & ~stays
    assert dropped.any()
    assert not logits[dropped].any()
    full = logits_of(any_model, inputs)
    assert (logits - full)[stays].abs().max() > 0.1
    with prune(any_model, method), torch.no_grad():
        close(any_model(**inputs, use_cache=False).logits, logits)


@pytest.mark.parametrize("positions", ["original", "renumbered"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_cutting_three_times_equals_masking(any_model, tiny, side, positions):
    inputs = tiny.inputs((5, 2), side)
    cuts = (
        (1, ((0, 2, 3, 4, 7, 9, 12), (1, 2, 5, 8, 13, 14, 15))),
        (2, RAGGED_WITHIN),
        (3, ((2, 9), (1, 15))),
    )
    method = tiny.Cuts(cuts=cuts, positions=positions)
    with prune(any_model, method) as trace, torch.no_grad():
        logits = any_model(**inputs).logits
    with torch.no_grad():
        expected, stays = hidden_by_masks(any_model, inputs, cuts, positions)
    close(logits[stays], expected[stays])
    total = inputs["input_ids"].shape[1]
    assert trace.lengths == [total, total - 9, total - 12, total - 14]
    assert [kept.tolist() for kept in trace.kept] == [[2, 9], [1, 15]]


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
            expected, stays = hidden_by_masks(any_model, inputs, [(layer, ((),))], positions)
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


def test_later_cuts_see_what_is_left_at_its_first_place(any_model, tiny):
    """Attention, keys and states at the third cut equal those of a run in which the gone columns are masked."""
    inputs = tiny.inputs((5, 2))
    ids = inputs["input_ids"]
    want = methods.Needs(
        attention=True,
        next_attention=True,
        prompt=True,
        projected=True,
        keys="raw",
        attended_keys=True,
        final_states=True,
        rotary=True,
    )
    cuts = ((1, ((0, 2, 3, 4, 7, 9, 12),)), (2, RAGGED_WITHIN[:1]), (3, ((2, 9),)))
    method = tiny.Cuts(cuts=cuts, want=want)
    with prune(any_model, method), torch.no_grad():
        any_model(**inputs)
    first, _, third = method.seen
    assert [cues.stage for cues in method.seen] == [0, 1, 2]
    assert first.among is None
    assert third.among.tolist() == [list(RAGGED_WITHIN[0])] * 2
    gone = torch.ones(16, dtype=torch.bool)
    gone[list(RAGGED_WITHIN[0])] = False
    rows = (third.attention, third.next_attention, third.prompt_attention)
    states = (third.features, third.keys, third.attended_keys, third.final_states, third.rotary)
    for values in (*(row.movedim(-1, 1) for row in rows), *states):
        assert not values[:, gone].any()
        assert values[:, ~gone].any()
    # Rows of attention sum to one over the visual tokens that are left and the words, so they grow as tokens go.
    assert (third.prompt_attention.sum(-1) <= 1 + 1e-5).all()
    norm, later = any_model.model.language_model.norm, any_model.model.language_model.layers[3]
    assert torch.equal(third.final_states[:, ~gone], norm(third.features[:, ~gone]))
    assert torch.equal(third.keys[:, ~gone], later.self_attn.k_proj(third.features[:, ~gone]))
    for row in range(2):
        columns = (ids[row] != tiny.image).nonzero()[:, 0]
        real = inputs["attention_mask"][row, columns].bool()
        after = columns > (ids[row] == tiny.image).nonzero()[-1, 0]
        assert third.prompt_valid[row].tolist() == (real & after).tolist()
        words = any_model.model.language_model.embed_tokens(ids[row, columns])
        assert torch.equal(third.prompt[row], words)
        close(third.prompt_attention[row, :, -1], third.attention[row], 1e-6)


@pytest.mark.parametrize("positions", ["original", "renumbered"])
def test_cues_at_a_later_cut_equal_those_of_a_run_that_does_not_cut_there(tiny, clip, positions):
    """Attention of the layer before the cut and of the layer at it, rotated keys, states and rotary angles."""
    model, inputs = tiny.model(attention="eager", clip=clip), tiny.inputs((5,))
    core, kept = model.model.language_model, EVERY_OTHER
    want = methods.Needs(
        attention=True,
        next_attention=True,
        prompt=True,
        projected=True,
        attended_keys=True,
        final_states=True,
        rotary=True,
    )
    method = tiny.Cuts(cuts=((1, (kept,)), (3, (kept[:2],))), want=want, positions=positions)
    with prune(model, method), torch.no_grad():
        model(**inputs)
    cues = method.seen[1]
    short = tiny.Fixed(kept=(kept,), layer=1, positions=positions)
    with prune(model, short), torch.no_grad():
        out = model(**inputs, output_attentions=True, use_cache=True)
        states = []
        with core.layers[3].register_forward_pre_hook(lambda module, args: states.append(args[0])):
            model(**inputs)
    before, at = (out.attentions[layer][0] for layer in (2, 3))
    places, columns = torch.tensor(kept), slice(2, 2 + len(kept))
    text = torch.cat([torch.arange(2), torch.arange(18, 23)])
    close(cues.attention[0][:, places], before[:, -1, 2 + places], 2e-6)
    close(cues.next_attention[0][:, places], at[:, -1, 2 + places], 2e-6)
    close(cues.prompt_attention[0][:, :, places], before[:, text][:, :, 2 + places], 2e-6)
    words = torch.cat([torch.arange(2), torch.arange(2 + len(kept), states[0].shape[1])])
    keys = cache_of(out).layers[2].keys[0].transpose(0, 1).flatten(1)
    assert torch.equal(cues.attended_keys[0, places], keys[columns])
    assert torch.equal(cues.prompt_keys[0], keys[words])
    final = core.norm(states[0][0])
    close(cues.final_states[0, places], final[columns], 1e-6)
    close(cues.prompt_states[0], final[words], 1e-6)
    now = torch.cat([torch.arange(2), 2 + places, torch.arange(18, 23)])
    ids = torch.arange(len(now)) if positions == "renumbered" else now
    angles = torch.cat(core.rotary_emb(final, position_ids=ids[None]), -1)[0]
    assert torch.equal(cues.rotary[0, places], angles[columns])
    assert torch.equal(cues.prompt_rotary[0], angles[words])


def test_looking_ahead_touches_nothing(any_model, tiny):
    """No layer runs twice, no cache is filled twice, no hook of the attention module runs, no bit changes."""
    inputs = tiny.inputs((5, 2))
    plain = tiny.Cuts(cuts=((1, (EVERY_OTHER,)), (2, (EVERY_OTHER[:4],)), (3, (EVERY_OTHER[:2],))))
    ahead = tiny.Cuts(cuts=plain.cuts, want=methods.Needs(next_attention=True, attention=True))
    calls, found = [], []
    with ExitStack() as stack:
        for layer in any_model.model.language_model.layers:
            stack.enter_context(layer.self_attn.register_forward_hook(lambda *call: calls.append(1)))
        for method in (plain, ahead):
            with prune(any_model, method), torch.no_grad():
                found.append(any_model(**inputs, use_cache=True))
    assert len(calls) == 2 * tiny.layers
    assert torch.equal(found[0].logits, found[1].logits)
    for one, other in zip(*(cache_of(out).layers for out in found), strict=True):
        assert torch.equal(one.keys, other.keys)


@pytest.mark.parametrize("keep", [4, 6, 7, 16])
def test_a_smaller_image_goes_through_the_encoder(any_model, tiny, keep):
    inputs = tiny.inputs((5,))
    method = methods.Downsample(keep=keep)
    rows, columns = method.lattice((4, 4))
    assert keep <= rows * columns < keep + max(rows, columns)
    small = torch.nn.functional.interpolate(
        inputs["pixel_values"], (14 * rows, 14 * columns), mode="bicubic", antialias=True
    )
    core, patches = any_model.model, []
    with prune(any_model, method) as trace, torch.no_grad():
        core.vision_tower.register_forward_hook(
            lambda *call: patches.append(call[-1].last_hidden_state.shape[1])
        )
        logits = any_model(**inputs).logits
    core.vision_tower._forward_hooks.clear()
    assert patches == [rows * columns + 1]
    assert len(trace.kept[0]) == keep
    if keep == rows * columns < 16:
        with torch.no_grad():
            seen = core.vision_tower(small, output_hidden_states=True, interpolate_pos_encoding=True)
            features = core.multi_modal_projector(seen.hidden_states[-2][:, 1:])
            words = core.language_model.embed_tokens(inputs["input_ids"])
            born = torch.cat([words[:, :2], features, words[:, 18:]], 1)
            expected = any_model(inputs_embeds=born).logits
        close(logits[0, -5:], expected[0, -5:])


@pytest.mark.parametrize("name", ["desap", "pool", "visionzip", "trim", "tome"])
def test_a_loss_reaches_the_pixels_through_merged_tokens(model, tiny, pair, name):
    inputs = tiny.inputs((5,))
    inputs["pixel_values"].requires_grad_()
    with prune(model, methods.make(name, keep=4), text=TEXT[:1], clip=pair):
        model(**inputs).logits.square().sum().backward()
    patches = inputs["pixel_values"].grad[0].reshape(3, 4, 14, 4, 14).abs().sum((0, 2, 4))
    assert (patches > 0).all()
    model.zero_grad()


def test_dart_takes_a_prompt_that_ends_with_the_image(any_model, tiny):
    inputs, kept = tiny.inputs((0, 0)), []
    for method in (methods.Dart(keep=9), methods.Dart(keep=9, text_pivots=0)):
        with prune(any_model, method) as trace, torch.no_grad():
            any_model(**inputs)
        kept.append(torch.stack(trace.kept))
    assert torch.equal(*kept)
    with (
        pytest.raises(ValueError, match="a word between the image and the end of the prompt"),
        prune(any_model, methods.SparseVLM(keep=4)),
    ):
        any_model(**inputs)
