"""What the harness does without lmms-eval: arguments, messages, generation arguments, batches and answers."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
import sys

import pytest
import torch
from PIL import Image

from lib.models.embedded import CHAT_TEMPLATE, PROMPT
from lib.models.prune import prune
from lib.paths import MODEL, ROOT
from lib.pruning.methods import NAMES, ClsTopK, DeSAP, FastV, NoPruning, PyramidDrop, make
from lib.study.harness import lmms
from lib.study.scenes.layout import Layout
from lib.study.scenes.questions import benchmark

POST = "\nAnswer the question using a single word or phrase."
ARGUMENTS = {"pretrained", "method", "hears", "device", "batch_size", "clip", "dtype", "chat_template"}
GREEDY = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


@pytest.fixture(scope="module")
def loaded():
    return lmms.open_model(MODEL, NoPruning())


def turn(*parts, role="user"):
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"role": role, "content": content}


def image(side=96, mode="RGB"):
    return {"type": "image", "url": Image.new(mode, (side, side))}


def test_entry_point_leads_to_the_manifest_and_imports_no_adapter():
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["optional-dependencies"]["harness"] == ["lmms-eval>=0.7.3,<0.8"]
    ((name, value),) = project["entry-points"]["lmms_eval.models"].items()
    point = importlib.metadata.EntryPoint(name, value, "lmms_eval.models")
    assert (point.name, point.load()) == (lmms.MODEL_ID, lmms.manifest)
    if importlib.util.find_spec("lmms_eval") is None:
        assert "lib.study.harness.lmms_model" not in sys.modules
        with pytest.raises(ModuleNotFoundError, match="lmms_eval"):
            lmms.manifest()


@pytest.mark.parametrize("name", NAMES)
def test_fields_of_methods_do_not_hide_model_arguments(name):
    method = make(name, **({} if name in ("none", "blind") else {"keep": 4}))
    assert not ARGUMENTS & set(method.known_fields())


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("none", {}, NoPruning()),
        ("desap", {"keep": 64}, DeSAP(keep=64)),
        ("desap", {"keep": 1.0, "saliency_layer": -2.0}, DeSAP(keep=1.0, saliency_layer=-2)),
        ("cls", {"keep": 0.25, "merge": True}, ClsTopK(keep=0.25, merge=True)),
        ("pyramiddrop", {"keep": 9, "layers": "[2,3]"}, PyramidDrop(keep=9, layers=(2, 3))),
    ],
)
def test_arguments_as_the_parser_leaves_them(name, given, expected):
    method = lmms.build_method(name, given)
    assert method == expected
    assert type(getattr(method, "keep", None)) is type(expected.keep)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("desapp", {"keep": 3}, "name must be one of .*; got 'desapp'"),
        ("fastv", {"keep": 3, "sharp": 2}, "fastv has no field sharp; known: "),
        ("fastv", {}, "keep must be given for fastv"),
        ("fastv", {"keep": 64.0}, "keep must be .*64.0"),
        ("fastv", {"keep": -3.0}, "keep must be .*-3"),
        ("none", {"keep": 3}, "keep must stay None"),
        ("pyramiddrop", {"keep": 9, "layers": "[2,"}, "layers must be a JSON list, got '\\[2,'"),
    ],
)
def test_bad_arguments(name, given, message):
    with pytest.raises(ValueError, match=message):
        lmms.build_method(name, given)


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        (FastV(keep=3, layer=5), {}, "layer must be within the 5 decoder layers, got 5"),
        (make("oracle", keep=3), {}, "evidence must be given"),
        (NoPruning(), {"dtype": "float17"}, "dtype must be .*'float17'"),
        (NoPruning(), {"dtype": "nn"}, "dtype must be .*'nn'"),
    ],
)
def test_what_cannot_run_is_refused_before_any_question(method, given, message):
    with pytest.raises(ValueError, match=message):
        lmms.open_model(MODEL, method, **given)


def test_chat_template_is_required_and_can_be_a_file(tmp_path):
    bare = shutil.copytree(MODEL, tmp_path / "bare", ignore=shutil.ignore_patterns("*.jinja", "checkpoints"))
    with pytest.raises(ValueError, match=r"chat_template must be given, as .*bare has none"):
        lmms.open_model(bare, NoPruning())
    file = tmp_path / "own.jinja"
    file.write_text("be kind . " + CHAT_TEMPLATE)
    model = lmms.open_model(bare, NoPruning(), chat_template=file, dtype="bfloat16")
    assert model.model.dtype == torch.bfloat16
    ask = lmms.read_messages(model.processor, [turn(image(), "what now ?")])
    assert ask.prompt == "be kind . " + PROMPT.format(question="what now ?")


def test_messages(loaded, tmp_path):
    question = "is there a star ?"
    frame = {"pre_prompt": "", "post_prompt": POST, "ocr": False}
    ask = lmms.read_messages(loaded.processor, [turn(image(mode="L"), question + POST)], frame=frame)
    assert ask.prompt == PROMPT.format(question=question + POST)
    assert (ask.text, ask.image.mode) == (question, "RGB")
    both = [turn(image(), question + POST)]
    assert lmms.read_messages(loaded.processor, both, "prompt", frame).text == question + POST
    assert lmms.read_messages(loaded.processor, both).text == question + POST
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    spoken = [
        turn("be kind", role="system"),
        turn({"type": "image", "url": str(tmp_path / "a.png")}, "a", "b"),
    ]
    ask = lmms.read_messages(loaded.processor, spoken)
    assert (ask.text, ask.image.size) == ("a\nb", (8, 6))


@pytest.mark.parametrize(
    "parts", [("a",), (image(), image(), "a"), (image(), {"type": "video", "url": "x"}, "a")]
)
def test_messages_hold_one_image(loaded, parts):
    with pytest.raises(ValueError, match="messages must hold one image and text, got "):
        lmms.read_messages(loaded.processor, [turn(*parts)])


def test_hears_is_one_of_two(loaded):
    with pytest.raises(ValueError, match="hears must be one of question, prompt; got 'all'"):
        lmms.read_messages(loaded.processor, [turn(image(), "a")], "all")


@pytest.mark.parametrize(
    ("given", "expected", "until"),
    [
        ({}, {"max_new_tokens": 1024, **GREEDY}, ()),
        (
            {"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False},
            {"max_new_tokens": 16, "num_beams": 1, **GREEDY},
            (),
        ),
        ({"until": "A:", "do_sample": True}, {"max_new_tokens": 1024, **GREEDY}, ("A:",)),
        ({"temperature": 0.7, "do_sample": False}, {"max_new_tokens": 1024, **GREEDY}, ()),
        (
            {"temperature": 0.7, "top_p": 0.9, "until": ["A:", "B:"]},
            {"max_new_tokens": 1024, "do_sample": True, "temperature": 0.7, "top_p": 0.9},
            ("A:", "B:"),
        ),
    ],
)
def test_generation(given, expected, until):
    before = json.dumps(given)
    assert lmms.generation(given) == (expected, until)
    assert json.dumps(given) == before


def test_batches_share_their_arguments():
    short, long = {"max_new_tokens": 4, "until": ["."]}, {"max_new_tokens": 9}
    given = [short, long, dict(short), short, long, short]
    assert list(lmms.batches(given, 3)) == [[0, 2, 3], [5], [1, 4]]
    assert list(lmms.batches(given, 1)) == [[0], [2], [3], [5], [1], [4]]
    assert not list(lmms.batches([], 3))


def test_answers_are_those_of_prune_and_generate_in_any_batch(loaded):
    scenes, asked = benchmark("test", 4, 11, Layout())
    rows = [
        (Image.fromarray(scenes.images[row]), found[place].text)
        for row, found in enumerate(asked)
        for place in (0, 1, 4)
    ]
    method, expected = DeSAP(keep=12), []
    for picture, question in rows:
        inputs = loaded.processor(
            images=picture, text=PROMPT.format(question=question + POST), return_tensors="pt"
        )
        with torch.no_grad(), prune(loaded.model, method, text=question, clip=loaded.clip):
            out = loaded.model.generate(**inputs, max_new_tokens=4, do_sample=False)
        new = out[0, inputs["input_ids"].shape[1] :]
        expected.append(loaded.processor.decode(new, skip_special_tokens=True).strip())
    asks = [
        lmms.read_messages(
            loaded.processor,
            [turn({"type": "image", "url": picture}, question + POST)],
            frame={"post_prompt": POST},
        )
        for picture, question in rows
    ]
    assert len({len(ask.prompt.split()) for ask in asks}) > 1  # so rows are padded
    for size in (1, 5):
        said = [
            answer
            for first in range(0, len(asks), size)
            for answer in lmms.answer(loaded, method, asks[first : first + size], {"max_new_tokens": 4})
        ]
        assert said == expected
    assert len(set(expected)) > 2


def test_answers_are_cut_and_errors_go_through(loaded):
    ask = lmms.Ask(Image.new("RGB", (96, 96)), PROMPT.format(question="is there a star ?"), "a star")
    whole = lmms.answer(loaded, NoPruning(), [ask], {"max_new_tokens": 4})[0]
    assert len(whole) > 1
    cut = lmms.answer(loaded, NoPruning(), [ask], {"max_new_tokens": 4, "until": [whole[1:]]})
    assert cut == [whole[0]]
    with pytest.raises(ValueError, match="keep=200 asks for 200 of 144 tokens"):
        lmms.answer(loaded, ClsTopK(keep=200), [ask], {})
