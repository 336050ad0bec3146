"""One way to a prompt: the harness and the own runner write the same one, with one start token."""

import copy

import pytest
import torch
from PIL import Image

from lib.models import hub, prompts
from lib.models.embedded import START
from lib.paths import MODEL
from lib.pruning.methods import NoPruning
from lib.study.arms import Arm
from lib.study.harness import asking, lmms
from lib.study.harness.benchmarks import chosen
from lib.study.harness.questions import Asked

IMAGE = Image.new("RGB", (96, 96))


@pytest.fixture(scope="module")
def loaded():
    return hub.load(MODEL)


@pytest.fixture
def processors(loaded):
    """The embedded model's processor, whose tokenizer sets the start token, and one whose template writes it, too."""
    writes = copy.copy(loaded.processor)
    writes.chat_template = "{{ '<s>' }}" + writes.chat_template
    return loaded.processor, writes


def turns(text):
    return [{"role": "user", "content": [{"type": "image", "url": IMAGE}, {"type": "text", "text": text}]}]


def test_a_prompt_has_one_start_token_whoever_writes_it(processors):
    plain, writes = processors
    by_tokenizer = prompts.encoded(plain, [prompts.written(plain, turns("is it red ?"))], images=[IMAGE])
    by_template = prompts.encoded(writes, [prompts.written(writes, turns("is it red ?"))], images=[IMAGE])
    assert by_tokenizer["input_ids"][0, 0] == START
    assert (by_template["input_ids"] == START).sum() == 1
    assert torch.equal(by_tokenizer["input_ids"], by_template["input_ids"])


def test_both_routes_ask_the_same_ids(loaded, processors, monkeypatch):
    asked = []

    def caught(processor, texts, **media):
        asked.append(prompts.encoded(processor, texts, **media))
        return asked[-1]

    for route in (lmms, asking):
        monkeypatch.setattr(route, "encoded", caught)
    text, (pope,) = "is it <image> red ?", chosen("pope")
    put = asking.Put(0, Asked(text, text, "yes", "a", {}), IMAGE)
    for processor in processors:
        mine = hub.Loaded(loaded.model, processor, loaded.clip)
        ask = lmms.read_messages(processor, turns(text))
        lmms.answer(mine, NoPruning(), [ask], {"max_new_tokens": 1})
        asking.answers(
            asking.Session(loaded=mine, name="a", weights="b"), pope, Arm(method=NoPruning()), [put]
        )
    assert len(asked) == 4
    assert all(torch.equal(asked[0]["input_ids"], one["input_ids"]) for one in asked)
    assert (asked[0]["input_ids"] == START).sum() == 1


def test_prompts_of_several_templates_are_refused(processors):
    with pytest.raises(ValueError, match="all begin with <s> or none of them; got"):
        prompts.encoded(processors[0], ["<s> USER: <image> a", "USER: <image> b"], images=[IMAGE, IMAGE])
