"""What is particular to a family: where cues come from, crops and frames, refusals."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import transformers as hf

from lib.models.anatomy import Anatomy
from lib.models.borrowed import CACHE, cache_of
from lib.models.clip import ClipPair
from lib.models.columns import renumber
from lib.models.last_layer import watch_last_layer
from lib.models.prune import prune
from lib.models.tiles import quotas
from lib.pruning import methods
from testkit.common import close
from testkit.families import (
    FRAMES,
    ROWS,
    VIDEO,
    frames,
    generate,
    inputs_of,
    model_of,
    single,
    visual_counts,
)
from testkit.tiny import build_tokenizer

NAMED = {row.name: row for row in ROWS}
TEXT = ["what color is the star ?", "how many dots"]
every_row = pytest.mark.parametrize("row", ROWS, ids=str)


def rows(*names):
    return pytest.mark.parametrize("row", [NAMED[name] for name in names], ids=str)


def watched(row, kernel="sdpa", layer=0, **needs):
    """The cues that a method would get, group by group, and the trace."""
    seen = []

    class Spy(methods.NoPruning):
        def needs(self):
            return methods.Needs(**needs)

        def choose(self, cues):
            seen.append(cues)
            return super().choose(cues)

    model = model_of(row, kernel)
    with prune(model, Spy(layer=layer)) as trace, torch.no_grad():
        model(**inputs_of(row))
    return seen, trace


@rows("llava_onevision", "internvl")
def test_saliency_equals_eager_weights(row):
    (cues, *_), _ = watched(row, saliency_layer=-1)
    model, inputs = model_of(row, "eager"), inputs_of(row)
    pixels = inputs["pixel_values"]
    tiles = pixels.flatten(0, 1)[:1] if pixels.ndim == 5 else pixels[:1]
    with torch.no_grad():
        weights = model.model.vision_tower(tiles, output_attentions=True).attentions[-1]
    if row.name == "internvl":
        expected = weights[0, :, 0, 1:].unflatten(-1, (4, 2, 4, 2)).mean((2, 4)).flatten(1)
    else:
        expected = weights[0].mean(1)
    close(cues.saliency[0], expected, 2e-6)


@rows("internvl", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen2_5_vl_video")
def test_patches_of_a_token_are_those_that_the_projector_joins(row):
    model, inputs = model_of(row), inputs_of(row)
    parts, seen = Anatomy.of(model), {}
    hooks = [
        parts.tower.register_forward_hook(lambda *call: seen.update(states=call[-1].last_hidden_state)),
        parts.projector.register_forward_pre_hook(lambda module, args: seen.update(joined=args[0])),
    ]
    with torch.no_grad():
        model(**inputs)
    for hook in hooks:
        hook.remove()
    joined, states = seen["joined"], seen["states"]
    patches = (states[:, 1:] if parts.family.cls else states).reshape(-1, states.shape[-1])
    members = parts.family.members(parts, len(patches))
    # The pixel shuffle of InternVL orders channels its own way, hence compared as sets.
    width = patches.shape[-1] * members.shape[1]
    expected = patches[members].flatten(1).sort(-1).values
    assert torch.equal(expected, joined.reshape(-1, width).sort(-1).values)


def test_windows_give_tokens_in_another_order_than_the_merger():
    order = Anatomy.of(model_of(NAMED["qwen2_5_vl"])).family.order
    found = order(Anatomy.of(model_of(NAMED["qwen2_5_vl"])), [[1, 8, 8]])
    assert found.tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]


@every_row
@pytest.mark.parametrize("layer", [0, 2])
def test_cues_are_those_of_their_tokens(row, layer):
    """What a method sees of a token is, projected, what the language model reads at its place."""
    model, inputs = model_of(row), inputs_of(row)
    read = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        model(**inputs)
    hook.remove()
    seen, trace = watched(row, layer=layer, projected=True, vision_keys=-1)
    embeds = [line[ids == row.placeholder] for line, ids in zip(read[0], inputs["input_ids"], strict=True)]
    found = torch.cat([cues.projected.flatten(0, 1) for cues in seen])
    everything = torch.cat(embeds)
    patches = sum(r * c for grids in trace.grids for r, c in grids)
    assert len(found) == patches
    # Each token's embedding is among those the method saw, and newlines are the rest.
    same = (found[:, None] == everything).all(-1)
    assert same.any(1).all()
    assert int(same.any(0).sum()) == patches
    assert all(cues.vision_keys.shape[:2] == cues.features.shape[:2] for cues in seen)


class Reader(methods.NoPruning):
    """Keeps everything and tells one number a token of each cue from inside the language model."""

    def needs(self):
        return methods.Needs(
            next_attention=True, attention=True, attended_keys=True, final_states=True, rotary=True
        )

    def choose(self, cues):
        order = torch.arange(cues.prompt_valid.shape[1])
        row, last = torch.arange(cues.batch), (cues.prompt_valid * order).argmax(-1)
        told = {
            "before": cues.attention.mean(1),
            "next": cues.next_attention.mean(1),
            "keys": cues.attended_keys.abs().sum(-1),
            "last key": cues.prompt_keys[row, last].abs().sum(-1, keepdim=True).expand(-1, cues.count),
            "states": cues.final_states.sum(-1),
            "last state": cues.prompt_states[row, last].sum(-1, keepdim=True).expand(-1, cues.count),
            "near": (cues.rotary * cues.prompt_rotary[row, last, None]).sum(-1),
        }
        return replace(super().choose(cues), scores=told)


@every_row
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_cues_inside_the_language_model_are_the_model_s_own(row, kernel):
    inputs = inputs_of(row)
    with prune(model_of(row, kernel), Reader(layer=2)) as trace, torch.no_grad():
        model_of(row, kernel)(**inputs)
    model, entered = model_of(row, "eager"), []
    decoder = model.model.language_model
    for place in range(2):
        alone = single(row, inputs, place)
        hook = decoder.layers[2].register_forward_pre_hook(
            lambda module, args, kwargs: entered.append((args[0], kwargs["position_embeddings"])),
            with_kwargs=True,
        )
        with torch.no_grad():
            out = model(**alone, output_attentions=True, use_cache=True)
        hook.remove()
        hidden, rotary = entered.pop()
        final, angles = decoder.norm(hidden)[0].sum(-1), torch.cat(rotary, -1)[0]
        keys = cache_of(out).layers[1].keys[0].abs().sum((0, 2))
        expected = {
            "before": out.attentions[1][0, :, -1].mean(0),
            "next": out.attentions[2][0, :, -1].mean(0),
            "keys": keys,
            "last key": keys[-1:].expand_as(keys),
            "states": final,
            "last state": final[-1:].expand_as(keys),
            "near": angles @ angles[-1],
        }
        visual = alone["input_ids"][0] == row.placeholder
        for name, values in expected.items():
            told = trace.scores[name][place, : int(visual.sum())]
            there = ~told.isnan()  # newlines between crops have no score
            assert there.any()
            torch.testing.assert_close(told[there], values[visual][there], atol=2e-5, rtol=1e-5)


class Filled(methods.UniformGrid):
    """Puts one constant in the place of all kept features."""

    def choose(self, cues):
        choice = super().choose(cues)
        return replace(choice, features=torch.full((*choice.kept.shape, cues.features.shape[2]), 0.25))


@every_row
def test_rewritten_features_reach_the_language_model(row):
    model, inputs = model_of(row), inputs_of(row)
    parts, read = Anatomy.of(model), []
    hook = parts.layers[0].register_forward_pre_hook(lambda module, args: read.append(args[0]))
    with prune(model, Filled(keep=0.5)) as trace, torch.no_grad():
        model(**inputs)
        (hidden,) = read
        hook.remove()
        width = parts.projector.register_forward_pre_hook(lambda module, args: read.append(args[0].shape[-1]))
        model(**inputs)
        width.remove()
    with torch.no_grad():
        shape = (1, parts.unit, read[-1]) if parts.unit == 1 else (parts.unit, read[-1])
        expected = parts.projector(torch.full(shape, 0.25)).flatten(0, -2)[0]
    same = (hidden - expected).abs().amax(-1) < 1e-5
    for found, kept, grids, count in zip(same, trace.kept, trace.grids, visual_counts(row), strict=True):
        newlines = count - sum(r * c for r, c in grids)
        assert int(found.sum()) == len(kept) - newlines


@rows("llava_next", "llava_onevision", "internvl", "qwen2_5_vl_video")
def test_one_budget_for_all_crops(row):
    model, inputs = model_of(row), inputs_of(row)
    method = methods.ClsTopK(keep=0.5, saliency_layer=-1)
    found = {}
    for budget in ("crop", "image"):
        with prune(model, method, budget=budget) as trace, torch.no_grad():
            model(**inputs)
        found[budget] = trace.kept
        grids = trace.grids[1]
    patches = sum(r * c for r, c in grids)
    kept, scores = found["image"][1], trace.scores["saliency"][1]
    newlines = scores[: visual_counts(row)[1]].isnan().nonzero()[:, 0]
    best = scores.nan_to_num(-1.0).sort(descending=True, stable=True).indices[: patches // 2]
    assert kept.tolist() == torch.cat([best, newlines]).sort().values.tolist()
    assert len(found["crop"][1]) == len(kept)
    assert not torch.equal(found["crop"][1], kept)
    with (
        pytest.raises(ValueError, match=f"budget must be 'crop' for uniform.*{type(model).__name__}"),
        prune(model, methods.UniformGrid(keep=0.5), budget="image"),
    ):
        model(**inputs)
    with (
        pytest.raises(ValueError, match="budget must be one of crop, image"),
        prune(model, method, budget="tile"),
    ):
        pass


def test_quotas():
    assert quotas([16, 16, 16], 10) == [4, 3, 3]
    assert quotas([16, 12, 4], 16) == [8, 6, 2]
    assert quotas([100, 1, 1], 3) == [1, 1, 1]
    assert quotas([100, 1, 1], 10) == [8, 1, 1]
    with pytest.raises(ValueError, match="at least one token for each of 3 crops, got 2"):
        quotas([5, 5, 5], 2)


def test_newlines_go_with_the_last_patch():
    row = NAMED["llava_next"]
    model, inputs = model_of(row), inputs_of(row)
    with prune(model, methods.Blind()) as trace, torch.no_grad():
        model(**inputs)
    assert [len(kept) for kept in trace.kept] == [0, 0]


@rows("llava_next", "llava_next_video")
def test_desap_in_the_space_of_clip_crop_by_crop(row):
    torch.manual_seed(0)
    tower = model_of(row).config.vision_config
    text = {
        "vocab_size": 64,
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "eos_token_id": 3,
    }
    config = hf.CLIPConfig(text_config=text, vision_config=tower.to_dict(), projection_dim=20)
    clip = hf.CLIPModel(config).eval()
    clip.vision_model.load_state_dict(model_of(row).model.vision_tower.state_dict())
    pair = ClipPair.of(clip, build_tokenizer())
    model, inputs, method = model_of(row), inputs_of(row), methods.DeSAP(keep=0.5)
    with prune(model, method, text=TEXT, clip=pair) as trace, torch.no_grad():
        model(**inputs)
    for place in range(2):
        with prune(model, method, text=TEXT[place], clip=pair) as alone, torch.no_grad():
            model(**single(row, inputs, place))
        assert torch.equal(alone.kept[0], trace.kept[place])
    assert set(trace.scores) == {"task", "saliency"}
    with torch.no_grad():
        seen = clip.vision_model(inputs["pixel_values"][0, :1])
    assert seen.last_hidden_state.shape[1] == 17


def test_desap_reads_the_words_after_the_image():
    row = NAMED["qwen2_5_vl"]
    model, inputs = model_of(row), inputs_of(row)
    method = methods.DeSAP(keep=0.5, similarity="embedding", share=1.0)
    scores = []
    for column, word in ((None, 0), (-1, 5), (6, 7)):
        ids = inputs["input_ids"].clone()
        if column is not None:
            assert ids[0, column] not in (word, row.placeholder)
            ids[0, column] = word
        with prune(model, method) as trace, torch.no_grad():
            model(**(inputs | {"input_ids": ids}))
        scores.append(trace.scores["task"])
    assert not torch.equal(scores[0][0, :8], scores[1][0, :8])
    assert torch.equal(scores[0][0, :8], scores[2][0, :8])  # a word before the image
    assert torch.equal(scores[0][1, :16], scores[1][1, :16])


def refuse(row, method, match, inputs=None, **options):
    model = model_of(row)
    with pytest.raises(ValueError, match=match), prune(model, method, **options), torch.no_grad():
        model(**(inputs_of(row) if inputs is None else inputs))


@rows("llava_onevision", "internvl", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")
def test_text_without_clip_is_refused_by_name(row):
    name = type(model_of(row)).__name__
    for method in (methods.DeSAP(keep=0.5), methods.Trim(keep=0.5), methods.CDPruner(keep=0.5)):
        refuse(
            row,
            method,
            f"{method.name} .* {name} has no CLIP vision tower.*similarity='embedding'",
            text=TEXT,
        )
    with pytest.raises(ValueError, match=f"{name}, whose vision tower is not CLIP's"):
        watch_last_layer(model_of(row), torch.zeros(1))


@rows("llava_next", "llava_onevision", "internvl", "qwen2_5_vl")
def test_a_smaller_image_is_refused_by_name(row):
    refuse(row, methods.Downsample(keep=0.3), f"downsample needs .*{type(model_of(row)).__name__}")


def test_layers_that_cannot_be_read_or_cut_are_refused():
    refuse(NAMED["qwen2_5_vl"], methods.ClsTopK(keep=0.5), r"saliency_layer .*Qwen2_5_VL.* \(0, 2\), got 1")
    refuse(NAMED["qwen3_vl"], methods.FastV(keep=0.5, layer=1), r"0 or at least 2 for Qwen3VL.*got \(1,\)")


def test_videos_are_refused_where_the_class_cannot():
    fixed = methods.UniformGrid(keep=0.5)
    for name in ("llava_onevision", "llava_next_video"):
        row = NAMED[name]
        video = {"pixel_values_videos": torch.randn(2, 2, 3, 56, 56)}
        ids = inputs_of(row)["input_ids"]
        refuse(row, fixed, "pixel_values_videos.*takes images, not videos", {"input_ids": ids, **video})
    row = NAMED["qwen2_5_vl"]
    both = inputs_of(row) | frames(torch.Generator().manual_seed(0))
    ids = both["input_ids"]
    tail = torch.full((2, sum(t * h * w for t, h, w in FRAMES) // 8), VIDEO)
    both["input_ids"] = torch.cat([ids, tail], 1)
    both["attention_mask"] = torch.ones_like(both["input_ids"])
    both["mm_token_type_ids"] = torch.cat([both["mm_token_type_ids"], torch.full_like(tail, 2).int()], 1)
    refuse(row, fixed, "images or videos in a batch, not both", both)


def test_crops_that_the_model_blends_are_refused():
    row = NAMED["llava_onevision"]
    model, inputs = model_of(row), inputs_of(row)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.config, "vision_aspect_ratio", "anyres_max_1")
        refuse(row, methods.UniformGrid(keep=0.5), "crops that the model interpolates", inputs)


@every_row
def test_prompts_and_images_must_belong_together(row):
    method, inputs = methods.UniformGrid(keep=0.5), inputs_of(row)
    words = {"input_ids": torch.randint(4, 40, (2, 80))}
    refuse(row, method, "visual tokens|images must be encoded", words)
    model = model_of(row)
    with prune(model, method), torch.no_grad():
        model(**inputs)
        with pytest.raises(ValueError, match="visual tokens"):
            model(**words)
    refuse(row, method, "text must hold one string per image, got 1 for 2", text="what")
    cache = hf.DynamicCache(config=model.config)
    with prune(model, method), torch.no_grad():
        model(**inputs, **{CACHE: cache})
        with pytest.raises(ValueError, match="must be empty when images come in"):
            model(**inputs, **{CACHE: cache})
        with pytest.raises(ValueError, match="no visual token"):
            model(input_ids=inputs["input_ids"], **{CACHE: cache})


# Not for videos: there `generate` and a loop of one's own count apart in transformers itself, pruned or not.
@pytest.mark.parametrize("row", [row for row in ROWS if row.placeholder != VIDEO], ids=str)
@pytest.mark.parametrize("positions", ["original", "renumbered"])
@pytest.mark.parametrize("layer", [0, 2])
def test_own_decode_loop_without_position_ids(row, layer, positions):
    model, inputs = model_of(row), single(row, inputs_of(row), 1)
    method = methods.UniformGrid(keep=0.5, layer=layer, positions=positions)
    with prune(model, method), torch.no_grad():
        auto = generate(model, inputs)
        out = model(**inputs, use_cache=True)
        for step, token in enumerate(auto.sequences[0, -3:]):
            close(out.logits[:, -1], auto.logits[step], 5e-5)
            out = model(input_ids=token.view(1, 1), **{CACHE: cache_of(out)})


@rows("llava_next", "internvl", "qwen2_5_vl", "qwen3_vl")
def test_second_turn(row):
    model, inputs = model_of(row), single(row, inputs_of(row), 1)
    visual = {name: value for name, value in inputs.items() if "pixel" in name or "image" in name}
    for layer in (2, 0):
        with prune(model, methods.UniformGrid(keep=0.5, layer=layer)):
            first = generate(model, inputs)
            asked = torch.cat([first.sequences, torch.tensor([[8, 9, 10]])], 1)
            turn = {"input_ids": asked, "attention_mask": torch.ones_like(asked)}
            if "mm_token_type_ids" in inputs:
                turn["mm_token_type_ids"] = (asked == row.placeholder).int()
            again = turn | {CACHE: cache_of(first)}
            if layer == 0:
                with pytest.raises(ValueError, match=r"second turn|visual token"):
                    generate(model, again)
                continue
            cached, whole = generate(model, again), generate(model, turn | visual)
        assert torch.equal(cached.sequences, whole.sequences)
        close(cached.logits[-1], whole.logits[-1], 5e-5)


def test_positions_of_three_axes_close_up():
    """An image of 3 x 3 after one word; its middle row and first column go."""
    axes = torch.tensor(
        [[0, *[1] * 9, 4], [0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4], [0, 1, 2, 3, 1, 2, 3, 1, 2, 3, 4]]
    )
    index = torch.tensor([[0, 2, 3, 8, 9, 10]])
    stays = torch.zeros(1, 11, dtype=torch.bool).scatter(1, index, True)
    real = torch.ones_like(stays)
    # Time holds 1, rows 1 and 3, columns 2 and 3: every id still has a holder.
    found, fewer = renumber(axes[:, None], index, stays, real)
    assert torch.equal(found, axes[:, None, index[0]])
    assert int(fewer) == 0
    index = torch.tensor([[0, 2, 5, 10]])  # without row and column 3
    stays = torch.zeros_like(stays).scatter(1, index, True)
    found, fewer = renumber(axes[:, None], index, stays, real)
    assert found[:, 0].tolist() == [[0, 1, 1, 3], [0, 1, 2, 3], [0, 2, 2, 3]]
    assert int(fewer) == 1
    four = torch.cat([torch.arange(11)[None, None], axes[:, None]])
    text, _ = renumber(four, index, stays, real)
    assert text[0].tolist() == [[0, 1, 2, 3]]
    assert torch.equal(text[1:], found)


def test_flash_kernels_of_packed_encoders_are_refused():
    model = model_of(NAMED["qwen2_vl"])
    config = model.model.visual.config
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            model.model.visual, "config", SimpleNamespace(**vars(config), _attn_implementation="flash")
        )
        refuse(NAMED["qwen2_vl"], methods.ClsTopK(keep=0.5), "Qwen2VL.* sdpa or eager")


def test_evidence_covers_all_visual_tokens():
    row = NAMED["internvl"]
    inputs = single(row, inputs_of(row), 1)
    evidence = torch.zeros(1, 32, dtype=torch.bool)
    evidence[0, [3, 20]] = True
    with prune(model_of(row), methods.Oracle(keep=2), evidence=evidence) as trace, torch.no_grad():
        model_of(row)(**inputs)
    assert trace.kept[0].tolist() == [3, 20]
    assert replace(methods.Oracle(keep=2), keep=4).reads_grid()
    refuse(row, methods.Oracle(keep=2), "evidence must have shape", evidence=evidence)
