"""Whatever cannot be pruned rightly is refused by one clear error."""

import copy
import io
import pickle
from dataclasses import replace

import peft
import pytest
import torch
from transformers import DynamicCache

from lib.models.borrowed import CACHE, cache_of
from lib.models.prune import prune
from lib.pruning import methods
from testkit.common import EVERY_OTHER, RAGGED, TEXT, logits_of
from testkit.families import IMAGE, ROWS, inputs_of, model_of


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
    inputs = tiny.inputs((5,))
    with prune(model, fixed), torch.no_grad():
        refuse(model, fixed, "already")
        model(**inputs)
    with prune(model, fixed), torch.no_grad():
        model(**inputs)


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
        pytest.raises(ValueError, match=r"visual tokens|chunk|encoded inside"),
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
            tiny.greedy(model, {"input_ids": asked, "attention_mask": mask, CACHE: cache_of(first)})


def test_images_and_foreign_caches(model, tiny):
    inputs = tiny.inputs((5,))
    fixed = tiny.Fixed(kept=(EVERY_OTHER,), layer=1)
    with torch.no_grad():
        foreign = cache_of(model(**inputs, use_cache=True))
    token = {"input_ids": torch.tensor([[5]]), CACHE: foreign}
    refuse(model, fixed, "not filled by this method", token)
    with prune(model, fixed), torch.no_grad():
        cache = cache_of(model(**inputs, use_cache=True))
        with pytest.raises(ValueError, match="must be empty when images come in"):
            model(**(inputs | {CACHE: cache}))
        with pytest.raises(ValueError, match="no visual token"):
            model(input_ids=inputs["input_ids"], **{CACHE: cache})
    refuse(model, replace(fixed, layer=0), "not filled by this method", token | {CACHE: cache})


def test_empty_cache_given_by_the_caller(model, tiny):
    inputs = tiny.inputs((5, 2))
    method = tiny.Fixed(kept=RAGGED, layer=2)
    expected = logits_of(model, inputs, method)
    assert torch.equal(
        logits_of(model, inputs | {CACHE: DynamicCache(config=model.config)}, method), expected
    )


def test_cuts_that_do_not_fit_are_refused(model, tiny):
    inputs, all_six = tiny.inputs((5,)), (EVERY_OTHER,)
    refuse(model, tiny.Cuts(cuts=((2, all_six), (1, all_six))), r"cuts must ascend.*\(2, 1\)")
    refuse(model, tiny.Cuts(cuts=((0, all_six), (2, all_six))), r"cuts must ascend.*\(0, 2\)")
    refuse(model, tiny.Cuts(cuts=((1, all_six), (4, all_six))), "layer must be within the 4 .* got 4")
    back = tiny.Cuts(cuts=((1, all_six), (2, ((0, 1),))))
    refuse(model, back, "kept must be among the tokens that cuts left at its cut before", inputs)


class Holder(torch.nn.Module):
    """A wrapper that nobody knows."""

    def __init__(self, policy):
        super().__init__()
        self.policy = policy


@pytest.mark.filterwarnings(
    "ignore:.*gradient_checkpointing.*:FutureWarning"
)  # PEFT reads names that are about to go
def test_wrappers_that_do_more_than_wrap_are_refused_with_the_way_out(tiny):
    fixed, parallel = tiny.Fixed(kept=(EVERY_OTHER,)), torch.nn.DataParallel(tiny.model())
    parallel.device_ids = [0, 1]
    refuse(parallel, fixed, "DataParallel over 2 devices, .* pass model.module")
    refuse(Holder(tiny.model()), fixed, "Holder around a LlavaForConditionalGeneration: pass .* model.policy")
    refuse(tiny.model().model, fixed, "LlavaModel; accepted classes")
    refuse("llava", fixed, "model is a str; accepted classes")
    learned = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    refuse(peft.get_peft_model(tiny.model(), learned), fixed, "learned tokens .* pass model.get_base_model")
    whole = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["vision_tower"])
    refuse(peft.get_peft_model(tiny.model(), whole), fixed, "ModulesToSaveWrapper.* merge_and_unload")


def test_a_copy_on_another_device_is_refused(tiny):
    model, inputs = tiny.model(), tiny.inputs((5, 2))
    with prune(model, tiny.Fixed(kept=(EVERY_OTHER,))), torch.no_grad():
        model(**inputs)
        with pytest.raises(ValueError, match="runs as a copy"):
            model.model._replicate_for_data_parallel()(**inputs)


@pytest.mark.parametrize(
    "method", [methods.ClsTopK(keep=6), methods.FastV(keep=6)], ids=lambda method: method.name
)
def test_nothing_that_holds_hooks_is_copied_or_pickled(tiny, method, tmp_path):
    # A model of its own: asked for hidden states once, transformers leaves hooks in it that pickle refuses as well.
    model, inputs = tiny.model(), tiny.inputs((5, 2))
    parts = [
        model,
        model.model,
        model.model.vision_tower,
        *model.model.language_model.layers[method.layer - 1 :],
    ]
    with prune(model, method) as trace, torch.no_grad():
        model(**inputs)
        for part in parts if method.layer else parts[:3]:
            for take in (copy.deepcopy, pickle.dumps, lambda part: torch.save(part, io.BytesIO())):
                with pytest.raises(ValueError, match=r"while it is being pruned.* save_pretrained\(\)"):
                    take(part)
        model.save_pretrained(tmp_path)
        saved = copy.deepcopy(model.state_dict())
    assert all(map(torch.equal, copy.deepcopy(trace).kept, trace.kept))
    again = type(model).from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)
    assert all(torch.equal(saved[name], weight) for name, weight in again.state_dict().items())


@pytest.mark.parametrize("layer", [0, 2])
def test_a_mask_of_another_form_is_called_that(model, tiny, layer):
    inputs = tiny.inputs((5,))
    length = inputs["input_ids"].shape[1]
    inputs["attention_mask"] = torch.ones(1, 1, length, length).tril().bool()
    refuse(model, tiny.Fixed(kept=(EVERY_OTHER,), layer=layer), r"attention_mask must be \[B, S\]", inputs)


@pytest.mark.parametrize("layer", [0, 2])
def test_guidance_is_named_as_what_asks_without_an_image(model, tiny, layer):
    with (
        prune(model, tiny.Fixed(kept=(EVERY_OTHER,), layer=layer)),
        pytest.raises(ValueError, match=r"got \[0\]: a prompt without an image .* guidance_scale"),
    ):
        tiny.greedy(model, tiny.inputs((5,)), guidance_scale=2.0)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_conversation_given_again_is_called_that(model, tiny, layer):
    inputs, token = tiny.inputs((5,)), torch.tensor([[9]])
    again = torch.cat([inputs["input_ids"], token], 1)
    with prune(model, tiny.Fixed(kept=(EVERY_OTHER,), layer=layer)), torch.no_grad():
        cache = cache_of(model(**inputs, use_cache=True))
        mask = torch.ones(1, inputs["input_ids"].shape[1] + again.shape[1], dtype=torch.long)
        for given in ({}, {"attention_mask": mask}):
            with pytest.raises(ValueError, match="pass only what is new, not the whole conversation again"):
                model(input_ids=again, **given, **{CACHE: cache})


def test_two_images_in_a_prompt_are_no_image_of_two_tiles():
    """InternVL counts tiles alone: two images in the second row would pass for one of two tiles."""
    row = next(row for row in ROWS if row.name == "internvl")
    inputs = inputs_of(row)
    ids = inputs["input_ids"][1]
    first = int((ids == IMAGE).nonzero()[16])
    inputs["input_ids"][1] = torch.cat([ids[:first], ids[-1:], ids[first:-1]])  # a word between the tiles
    with torch.no_grad():
        model_of(row)(**inputs)  # which the model itself takes
    for method in (methods.UniformGrid(keep=0.5), methods.FastV(keep=0.5)):
        refuse(model_of(row), method, r"one image a row, .* got \[1, 2\] places", inputs)
