"""Whatever cannot be pruned rightly is refused by one clear error."""

from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache

from lib.models.borrowed import CACHE, cache_of
from lib.models.prune import prune
from lib.pruning import methods
from testkit.common import EVERY_OTHER, RAGGED, TEXT, logits_of


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
