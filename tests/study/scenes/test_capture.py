"""What is captured from a running model is what the model and the methods used."""

import numpy as np
import pytest
import torch

from lib.models.hub import load
from lib.models.prune import prune
from lib.paths import MODEL
from lib.pruning import methods
from lib.pruning.cues import cls_saliency
from lib.study.scenes import capture

pytestmark = pytest.mark.skipif(not (MODEL / "config.json").is_file(), reason="no embedded model here")


@pytest.fixture(scope="module")
def loaded():
    return load(MODEL)


@pytest.fixture(scope="module")
def asked():
    return capture.sample(3)


def test_sample_takes_turns_and_has_evidence(asked):
    assert [question.suite for question in asked] == ["exists", "attribute", "count"][-len(asked) :]
    assert all(question.evidence.any() and question.evidence.shape == (144,) for question in asked)


def test_seen_is_what_prune_traces(loaded, asked):
    method = methods.DeSAP(keep=16)
    seen = capture.see(loaded, asked, method, words=2)
    inputs = capture.encode(loaded, asked)
    with (
        torch.no_grad(),
        prune(loaded.model, method, text=[question.question for question in asked]) as trace,
    ):
        loaded.model(**inputs)
    assert torch.equal(torch.stack(trace.kept), seen.choice.kept)
    assert torch.equal(trace.scores["task"], seen.trace.scores["task"])
    assert len(seen.answers) == len(asked)
    assert torch.equal(method.choose(seen.cues).kept, seen.choice.kept)


def test_cues_captured_apart_give_the_same_choice(loaded, asked):
    desap, adaptprune = methods.DeSAP(keep=16), methods.AdaptPrune(keep=16)
    cues = capture.encoder_cues(loaded, asked)
    assert torch.equal(desap.choose(cues).kept, capture.see(loaded, asked, desap).choice.kept)
    torch.testing.assert_close(cls_saliency(cues.saliency), desap.choose(cues).scores["saliency"])
    late = capture.decoder_cues(loaded, asked, adaptprune)
    assert torch.equal(adaptprune.choose(late).kept, capture.see(loaded, asked, adaptprune).choice.kept)


def test_words_stand_where_the_cues_have_them(loaded, asked):
    words = capture.text_words(loaded, asked[0].question)
    cues = capture.encoder_cues(loaded, asked[:1])
    assert len(words) == cues.tokens.shape[1]
    special = np.array([word in ("<s>", "</s>") for word in words])
    assert np.array_equal(special, cues.text_special[0].numpy())
