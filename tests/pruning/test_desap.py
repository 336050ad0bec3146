"""DeSAP against its transcription, and every cue and switch of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lib.pruning import methods
from lib.pruning.methods import DeSAP, Needs
from lib.study.parity import oracles
from testkit import transcriptions
from testkit.builders import chosen, make_cues


@pytest.mark.parametrize(("keep", "share"), [(9, 0.5), (8, 0.25), (36, 0.5), (1, 0.5), (9, 0.0), (9, 1.0)])
def test_desap_equals_its_transcription(keep, share):
    cues = make_cues(1)
    choice = DeSAP(keep=keep, share=share).choose(cues)
    for row in range(2):
        words = cues.tokens[row][cues.text_valid[row]]
        parts = [
            oracles.unit(part.numpy())
            for part in (cues.patches[row], words, cues.image[row], cues.sentence[row])
        ]
        task = transcriptions.fine_grained_alignment(*parts, 0.1)
        saliency = cues.saliency[row].double().numpy().mean(0)
        kept = transcriptions.split_top_k(task, saliency, keep, share)
        assert choice.kept[row].tolist() == kept
        merged = transcriptions.average_into_kept(cues.features[row].numpy(), kept)
        np.testing.assert_allclose(choice.features[row], merged, rtol=1e-5, atol=1e-6)


def test_desap_asks_for_what_its_switches_need():
    assert DeSAP(keep=4).needs() == Needs(saliency_layer=-1, patches="qq", text=True)
    assert DeSAP(keep=4, share=0).needs() == Needs(saliency_layer=-1)
    assert DeSAP(keep=4, share=1, attention="vv").needs() == Needs(patches="vv", text=True)
    for similarity in ("vanilla", "negated"):
        assert DeSAP(keep=4, similarity=similarity).needs().patches == "hidden"
    assert DeSAP(keep=4, saliency_layer=-2).needs().saliency_layer == -2


def test_desap_by_embedding_is_the_alignment_of_means():
    cues = make_cues(2)
    method = DeSAP(keep=9, similarity="embedding")
    assert method.needs() == Needs(saliency_layer=-1, projected=True, words=True)
    assert DeSAP(keep=9, similarity="embedding", share=0.0).needs() == Needs(saliency_layer=-1)
    found = method.choose(cues).scores["task"]
    for row in range(cues.batch):
        words = cues.prompt[row][cues.prompt_valid[row]]
        visual = cues.projected[row]
        parts = [oracles.unit(part.numpy()) for part in (visual, words, visual.mean(0), words.mean(0))]
        np.testing.assert_allclose(
            found[row], transcriptions.fine_grained_alignment(*parts, 0.1), rtol=1e-4, atol=1e-9
        )
    for refused in ({"key_tokens": 3}, {"special_tokens": False}):
        with pytest.raises(ValueError, match="text tower, which similarity='embedding' has not"):
            DeSAP(keep=9, similarity="embedding", **refused)


def test_desap_follows_the_text():
    cues = make_cues(2)
    other = dataclasses.replace(cues, tokens=cues.tokens.flip(-1), sentence=cues.sentence.flip(-1))
    assert chosen(DeSAP(keep=9), cues) != chosen(DeSAP(keep=9), other)
    assert chosen(DeSAP(keep=9, share=1.0), cues) != chosen(DeSAP(keep=9, share=1.0), other)
    assert chosen(DeSAP(keep=9, share=0.0), cues) == chosen(DeSAP(keep=9, share=0.0), other)


def test_desap_follows_the_saliency():
    cues = make_cues(2)
    other = dataclasses.replace(cues, saliency=cues.saliency.flip(-1))
    assert chosen(DeSAP(keep=9), cues) != chosen(DeSAP(keep=9), other)
    assert chosen(DeSAP(keep=9, share=1.0), cues) == chosen(DeSAP(keep=9, share=1.0), other)


@pytest.mark.parametrize(
    "switch",
    [
        {"share": 0.0},
        {"share": 1.0},
        {"combine": "sum"},
        {"similarity": "negated"},
        {"aligned": False},
        {"aligned": False, "pooling": "sentence"},
        {"normalised": False, "scale": 5.0},
        {"special_tokens": False},
        {"key_tokens": 1},
    ],
)
def test_every_desap_switch_reaches_the_choice(switch):
    cues = make_cues(3, batch=4)
    assert chosen(DeSAP(keep=9, **switch), cues) != chosen(DeSAP(keep=9), cues)


def test_pooling_changes_the_plain_similarity():
    cues = make_cues(3)
    plain = DeSAP(keep=9, aligned=False)
    assert chosen(plain, cues) != chosen(dataclasses.replace(plain, pooling="sentence"), cues)


def test_merging_rewrites_the_kept_rows_and_no_choice():
    cues = make_cues(4)
    merged, dropped = (DeSAP(keep=9, merge=merge).choose(cues) for merge in (True, False))
    assert torch.equal(merged.kept, dropped.kept)
    assert dropped.features is None
    plain = cues.features.gather(1, merged.kept[..., None].expand(-1, -1, 8))
    assert not torch.equal(merged.features, plain)
    cls = methods.make("cls", keep=9, merge=True).choose(cues)
    assert cls.features is not None
    assert methods.make("cls", keep=9).choose(cues).features is None


def test_task_share_of_zero_is_cls_top_k_of_the_same_layer():
    cues = make_cues(5)
    assert chosen(DeSAP(keep=9, share=0.0), cues) == chosen(methods.make("cls", keep=9), cues)


def test_negated_is_the_vanilla_map_upside_down():
    cues = make_cues(6)
    vanilla = DeSAP(keep=9, share=1.0, similarity="vanilla").choose(cues).scores["task"]
    negated = DeSAP(keep=9, share=1.0, similarity="negated").choose(cues).scores["task"]
    assert torch.equal(vanilla, -negated)


def test_text_without_a_word_is_refused():
    cues = make_cues(0)
    only_special = dataclasses.replace(cues, text_valid=cues.text_special)
    with pytest.raises(ValueError, match=r"valid must keep at least one text token a row; rows \[0, 1\]"):
        DeSAP(keep=9, special_tokens=False).choose(only_special)
