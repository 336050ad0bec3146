"""Pruned runs against models that never heard of pruning: masks instead of dropped columns, shorter prompts."""

from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache

from lib.models.prune import prune
from lib.pruning import methods

EVERY_OTHER = tuple(range(0, 16, 3))
RAGGED = ((0, 3, 4, 9), (1, 2, 14, 15))
TEXT = ["what color is the star ?", "how many dots"]


def logits_of(model, inputs, method=None, **kwargs):
    with torch.no_grad():
        if method is None:
            return model(**inputs).logits
        with prune(model, method, **kwargs):
            return model(**inputs).logits


def hidden_by_masks(model, inputs, kept, layer, positions):
    """The same answer with nothing dropped: every column goes through every layer, but from `layer` on the dropped
    ones are masked as keys. Written as a layer loop of its own. Returns logits [B, S, V] and the columns that stay."""
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


def close(left, right, tolerance=1e-5):
    torch.testing.assert_close(left, right, atol=tolerance, rtol=0)


# Keeping everything -----------------------------------------------------------------------------------------------


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


# The oracle -------------------------------------------------------------------------------------------------------


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
    assert dropped.any() and not logits[dropped].any()
    full = logits_of(any_model, inputs)
    assert (logits - full)[stays].abs().max() > 0.1
    without_cache = replace(method)
    with prune(any_model, without_cache), torch.no_grad():
        close(any_model(**inputs, use_cache=False).logits, logits)
        if side == "left" and layer == 0:  # no mask at all: gaps in the ids must not read as packed sequences
            single = tiny.one_row(inputs, 2)
            single.pop("attention_mask")
    if side == "left" and layer == 0:
        with prune(any_model, replace(method, kept=kept[-1:])), torch.no_grad():
            bare = any_model(**single, use_cache=False).logits
        close(bare[0], logits[2])


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


# Generation -------------------------------------------------------------------------------------------------------


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
    lengths = [cached.past_key_values.get_seq_length(number) for number in range(tiny.layers)]
    total = inputs["input_ids"].shape[1] + 3
    assert lengths == [total] * layer + [total - 12] * (tiny.layers - layer)


METHODS = [
    methods.DeSAP(keep=6),
    methods.DeSAP(keep=6, merge=False, positions="original"),
    methods.AdaptPrune(keep=6, radius=2.0),
    methods.AdaptPrune(keep=6, keys="normed", layer=1, positions="renumbered"),
    methods.FastV(keep=6),
    methods.ClsTopK(keep=6),
    methods.UniformGrid(keep=6, layer=2),
    methods.Random(keep=6),
    methods.Random(keep=6, layer=1),
    methods.Blind(),
]


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
    assert len(kept) == 2 and all(len(row) == (0 if method.name == "blind" else 6) for row in kept)
    assert trace.grid == (4, 4) and trace.layers == tiny.layers and trace.method is method


@pytest.mark.parametrize("method", METHODS[2:5], ids=lambda method: method.name)
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


@pytest.mark.parametrize("method", [METHODS[0], METHODS[2], METHODS[7]], ids=lambda method: method.name)
def test_beam_search(any_model, tiny, pair, method):
    inputs = tiny.inputs((5, 2))
    beams = {"num_beams": 3, "length_penalty": 0.0}
    with prune(any_model, method, text=TEXT, clip=pair) as trace:
        batch = tiny.greedy(any_model, inputs, **beams)
    kept, scores = trace.kept, trace.scores
    assert len(kept) == 2 and all(len(values) == 2 for values in scores.values())
    for row in range(2):
        with prune(any_model, method, text=TEXT[row], clip=pair) as alone:
            single = tiny.greedy(any_model, tiny.one_row(inputs, row), **beams)
        assert torch.equal(single.sequences[0, -4:], batch.sequences[row, -4:])
        assert torch.equal(alone.kept[0], kept[row])


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
            out = any_model(input_ids=token.view(1, 1), past_key_values=out.past_key_values)


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
            step = model(input_ids=token, past_key_values=out.past_key_values).logits
            close(step[:, 0], model(**longer).logits[:, -1])


def test_second_text_turn_after_a_decoder_stage(any_model, tiny):
    inputs = tiny.inputs((5,))
    with prune(any_model, tiny.Fixed(kept=(EVERY_OTHER,), layer=2)):
        first = tiny.greedy(any_model, inputs)
        asked = torch.cat([first.sequences, torch.tensor([[8, 9, 10]])], 1)
        turn = {"input_ids": asked, "attention_mask": torch.ones_like(asked)}
        cached = tiny.greedy(any_model, turn | {"past_key_values": first.past_key_values})
        whole = tiny.greedy(any_model, turn | {"pixel_values": inputs["pixel_values"]})
    assert torch.equal(cached.sequences, whole.sequences)
    close(cached.logits[-1], whole.logits[-1], 2e-5)


# What methods see -------------------------------------------------------------------------------------------------


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
    assert cues.saliency.shape == (2, 4, 16) and cues.saliency.dtype == torch.float32
    assert cues.patches.shape == (2, 16, 20) and cues.image.shape == cues.sentence.shape == (2, 20)
    assert cues.tokens.shape == (2, 8, 20) and cues.text_importance.shape == (2, 8)
    assert cues.text_valid.sum(1).tolist() == [8, 5] and cues.text_special.sum(1).tolist() == [2, 2]
    assert torch.equal(cues.evidence, evidence) and cues.attention is None and cues.keys is None


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
    assert cues.saliency.shape == (2, 4, 16) and cues.tokens.shape == (2, 8, 20)


def test_rewritten_features_reach_the_projector(model, tiny):
    inputs = tiny.inputs((5,))
    method = tiny.Fixed(kept=(EVERY_OTHER,), fill=0.25)
    seen = []
    handle = model.model.multi_modal_projector.linear_1.register_forward_hook(
        lambda module, args, output: seen.append(args[0])
    )
    logits = logits_of(model, inputs, method)
    handle.remove()
    assert (seen[0][0, list(EVERY_OTHER)] == 0.25).all() and not (seen[0][0, 1] == 0.25).any()
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
    assert kept[0] == kept[1][::-1] and kept[0] != kept[2] and kept[0][0] != kept[0][1]


def test_oracle_reads_evidence(model, tiny):
    evidence = torch.zeros(2, 16, dtype=torch.bool)
    evidence[0, [3, 7]] = evidence[1, [0, 15]] = True
    with prune(model, methods.Oracle(keep=2), evidence=evidence) as trace, torch.no_grad():
        model(**tiny.inputs((5, 2)))
    assert [row.tolist() for row in trace.kept] == [[3, 7], [0, 15]]


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
        assert trace.scores and all(values.dtype == torch.float32 for values in trace.scores.values())


# Restoration ------------------------------------------------------------------------------------------------------


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
    with pytest.raises(KeyboardInterrupt), prune(model, method, text=TEXT, clip=pair):
        with torch.no_grad():
            model(**inputs)
        assert hooks_and_configs(model) != before
        raise KeyboardInterrupt
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


# Refusals ---------------------------------------------------------------------------------------------------------


def refuse(model, method, match, inputs=None, **kwargs):
    with pytest.raises(ValueError, match=match), prune(model, method, **kwargs), torch.no_grad():
        model(**inputs) if inputs is not None else None


def test_entry_refusals(model, tiny, pair):
    fixed = tiny.Fixed(kept=(EVERY_OTHER,))
    refuse(torch.nn.Linear(2, 2), fixed, "Linear; accepted classes: LlavaForConditionalGeneration")
    refuse(model, methods.FastV(keep=4, layer=4), "layer must be within the 4 .* got 4")
    refuse(model, replace(fixed, layer=9), "got 9")
    refuse(model, replace(fixed, positions="other"), "'other'")
    refuse(model, replace(fixed, want=methods.Needs(attention=True)), "layer must be at least 1")
    refuse(model, replace(fixed, want=methods.Needs(keys="odd"), layer=1), "'odd'")
    refuse(model, methods.DeSAP(keep=4), "text must be given", clip=pair)
    refuse(model, methods.DeSAP(keep=4), "lib.models.clip.load", text=TEXT)
    for text in (["what", " "], "", []):
        refuse(model, fixed, "text must hold", text=text)
    refuse(model, methods.Oracle(keep=4), "evidence must be given")
    refuse(model, methods.Oracle(keep=4), "evidence must be bool", evidence=torch.zeros(2, 16))
    other = type(pair).of(tiny.clip(width=64), tiny.tokenizer())
    refuse(model, methods.DeSAP(keep=4), "64.*32", text=TEXT, clip=other)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"vision_feature_select_strategy": "full"}, "'full'"),
        ({"vision_feature_layer": [-2, -1]}, r"\[-2, -1\]"),
    ],
)
def test_variants_of_the_class_are_refused(tiny, change, match):
    refuse(tiny.model(**change), tiny.Fixed(kept=(EVERY_OTHER,)), match)


def test_a_second_context_on_the_same_model_is_refused(model, tiny):
    fixed = tiny.Fixed(kept=(EVERY_OTHER,))
    with prune(model, fixed):
        refuse(model, fixed, "already")
    with prune(model, fixed):
        pass


@pytest.mark.parametrize("layer", [0, 2])
def test_prompt_refusals(model, tiny, layer):
    fixed = tiny.Fixed(kept=(EVERY_OTHER,), layer=layer)
    inputs = tiny.inputs((5, 2))
    words = torch.randint(4, 40, (2, 30))
    refuse(model, fixed, "visual tokens", {"input_ids": words})
    refuse(model, fixed, "visual tokens", {"input_ids": words[:, :3]})
    with prune(model, fixed), torch.no_grad():
        model(**inputs)
        with pytest.raises(ValueError, match=r"visual tokens .* \[0, 0\]"):
            model(input_ids=words)
    twice = torch.cat([inputs["input_ids"][:1], inputs["input_ids"][:1]], 1)
    refuse(model, fixed, "one image", {"input_ids": twice, "pixel_values": inputs["pixel_values"]})
    both = torch.cat([twice, torch.randint(4, 40, twice.shape)])
    refuse(model, fixed, r"\[32, 0\]", {"input_ids": both, "pixel_values": inputs["pixel_values"]})
    refuse(model, fixed, "text must hold one string per image, got 1", inputs, text="what")
    refuse(
        model,
        fixed,
        r"evidence must have shape \(2, 16\)",
        inputs,
        evidence=torch.ones(2, 9, dtype=torch.bool),
    )
    refuse(model, fixed, "input_ids must be given", {"inputs_embeds": torch.zeros(1, 20, 32)})
    refuse(model, replace(fixed, score=float("nan")), "finite", inputs)
    refuse(model, replace(fixed, score=float("inf")), "finite", inputs)
    refuse(model, replace(fixed, kept=((3, 1),)), "ascending", inputs)
    refuse(model, replace(fixed, kept=((1, 1),)), "ascending", inputs)
    refuse(model, replace(fixed, kept=((-1, 1),)), "ascending", inputs)
    if layer:
        refuse(model, replace(fixed, fill=1.0), "layer 0 only", inputs)
        decoder = model.model.language_model
        decoder.training = decoder.gradient_checkpointing = True
        refuse(model, fixed, "gradient checkpointing", inputs)
        decoder.training = decoder.gradient_checkpointing = False


@pytest.mark.parametrize("layer", [0, 2])
def test_features_from_elsewhere_are_refused(model, tiny, layer):
    fixed = tiny.Fixed(kept=(EVERY_OTHER,), layer=layer)
    inputs, other = tiny.inputs((5,)), tiny.inputs((5,), seed=9)
    with torch.no_grad():
        encoded = model.get_image_features(other["pixel_values"])
    given = {"input_ids": inputs["input_ids"], "mm_encoder_outputs": {"image": encoded}}
    refuse(model, fixed, "encoded inside", given)
    with prune(model, fixed), torch.no_grad():
        model(**inputs)
        with pytest.raises(ValueError, match="other visual features"):
            model(**given)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("chunk", [7, 20, 99])
def test_chunked_prefill_is_refused(model, tiny, layer, chunk):
    with (
        prune(model, tiny.Fixed(kept=(EVERY_OTHER,), layer=layer)),
        pytest.raises(ValueError, match="visual tokens|chunk"),
    ):
        tiny.greedy(model, tiny.inputs((5,)), prefill_chunk_size=chunk)


@pytest.mark.parametrize("layer", [0, 2])
def test_static_cache_is_refused(model, tiny, layer):
    with (
        prune(model, tiny.Fixed(kept=(EVERY_OTHER,), layer=layer)),
        pytest.raises(ValueError, match="static cache"),
    ):
        tiny.greedy(model, tiny.inputs((5, 2)), cache_implementation="static")


@pytest.mark.parametrize("padded", [False, True])
def test_second_turn_on_a_cache_short_from_layer_zero_is_refused(model, tiny, padded):
    inputs = tiny.inputs((5, 2) if padded else (5,))
    with prune(model, tiny.Fixed(kept=(EVERY_OTHER,))):
        first = tiny.greedy(model, inputs)
        asked = torch.cat([first.sequences, first.sequences[:, 4:6] % 5 + 4], 1)
        mask = torch.ones_like(asked)
        mask[:, : inputs["attention_mask"].shape[1]] = inputs["attention_mask"]
        with pytest.raises(ValueError, match=r"visual token|second turn"):
            tiny.greedy(
                model, {"input_ids": asked, "attention_mask": mask, "past_key_values": first.past_key_values}
            )


def test_images_and_foreign_caches(model, tiny):
    inputs = tiny.inputs((5,))
    fixed = tiny.Fixed(kept=(EVERY_OTHER,), layer=1)
    with torch.no_grad():
        foreign = model(**inputs, use_cache=True).past_key_values
    token = {"input_ids": torch.tensor([[5]]), "past_key_values": foreign}
    refuse(model, fixed, "not filled by this method", token)
    with prune(model, fixed), torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
        with pytest.raises(ValueError, match="must be empty when images come in"):
            model(**(inputs | {"past_key_values": cache}))
        with pytest.raises(ValueError, match="no visual token"):
            model(input_ids=inputs["input_ids"], past_key_values=cache)
    refuse(model, replace(fixed, layer=0), "not filled by this method", token | {"past_key_values": cache})


def test_empty_cache_given_by_the_caller(model, tiny):
    inputs = tiny.inputs((5, 2))
    method = tiny.Fixed(kept=RAGGED, layer=2)
    expected = logits_of(model, inputs, method)
    assert torch.equal(
        logits_of(model, inputs | {"past_key_values": DynamicCache(config=model.config)}, method), expected
    )
