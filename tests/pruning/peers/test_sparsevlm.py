"""SparseVLM: the published lists, who rates, and what its second version does to the rows."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from lib.pruning import methods
from lib.pruning.methods import Needs, SparseVLM
from lib.pruning.peers.sparsevlm import LISTS, distance_factor, relevant_words
from testkit.builders import build, make_cues


@pytest.mark.parametrize("version", LISTS)
def test_the_last_count_of_a_setting_gives_its_published_list(version):
    for setting, counts in LISTS[version].items():
        method = SparseVLM(keep=counts[-1], version=version, setting=setting)
        assert method.left(576) == counts
    assert SparseVLM(keep=17).left(576) == (66, 30, 17)
    assert SparseVLM(keep=48).left(144) == (144, 85, 48)


def test_a_version_brings_its_positions_unless_told():
    assert SparseVLM(keep=9).positions == "renumbered"
    assert SparseVLM(keep=9, version="v2").positions == "original"
    assert SparseVLM(keep=9, positions="original").positions == "original"
    assert SparseVLM(keep=9, version="v2", positions="renumbered").positions == "renumbered"
    assert SparseVLM(keep=9).needs() == Needs(prompt=True, projected=True)
    assert SparseVLM(keep=9, version="v2").needs() == Needs(prompt=True, projected=True, rotary=True)


def test_raters_are_the_words_above_the_average():
    visual, words = torch.randn(2, 7, 4), torch.randn(2, 5, 4)
    valid = torch.tensor([[True, True, True, True, True], [False, True, True, False, True]])
    found = relevant_words(visual, words, valid)
    for row in range(2):
        products = visual[row].double().numpy() @ words[row][valid[row]].double().numpy().T
        weights = np.exp(products - products.max(1, keepdims=True))
        match = (weights / weights.sum(1, keepdims=True)).mean(0)
        assert found[row][valid[row]].tolist() == (match > match.mean()).tolist()
        assert not found[row][~valid[row]].any()


def test_equally_relevant_words_all_rate():
    words = torch.ones(1, 3, 4)
    valid = torch.tensor([[True, False, True]])
    assert relevant_words(torch.randn(1, 6, 4), words, valid).tolist() == valid.tolist()


@pytest.mark.parametrize("version", LISTS)
def test_raters_alone_decide(version):
    cues, method = make_cues(1), build("sparsevlm", version=version)
    raters = relevant_words(cues.projected, cues.prompt, cues.prompt_valid)
    mask = raters[:, None, :, None]
    noisy = torch.where(mask, cues.prompt_attention, 100 * cues.prompt_attention)
    noisy = dataclasses.replace(cues, prompt_attention=noisy)
    assert torch.equal(method.rank(noisy)["raters"], method.rank(cues)["raters"])
    silent = dataclasses.replace(cues, prompt_attention=cues.prompt_attention.masked_fill(mask, 0.5))
    assert not torch.equal(method.rank(silent)["raters"], method.rank(cues)["raters"])


def test_the_first_version_is_the_mean_over_heads_and_raters():
    cues = make_cues(1)
    raters = relevant_words(cues.projected, cues.prompt, cues.prompt_valid)
    expected = [cues.prompt_attention[row].double().mean(0)[raters[row]].mean(0) for row in range(2)]
    np.testing.assert_allclose(build("sparsevlm").rank(cues)["raters"], torch.stack(expected), rtol=1e-6)


def test_the_distance_factor_is_the_sum_of_cosines():
    theta, words, tokens = torch.tensor([1.0, 0.1]), torch.tensor([9.0, 30.0]), torch.tensor([1.0, 4.0, 7.0])

    def circle(places):
        angles = (places[:, None] * theta).repeat(1, 2)
        return torch.cat([angles.cos(), angles.sin()], -1)[None]

    found = distance_factor(circle(words), circle(tokens))[0]
    for row, word in enumerate(words.tolist()):
        for column, token in enumerate(tokens.tolist()):
            told = sum(2 * math.cos((word - token) * f) for f in theta.tolist()) / math.sqrt(4)
            assert found[row, column].item() == pytest.approx(told, abs=1e-6)
    assert distance_factor(torch.zeros(1, 1, 4), torch.zeros(1, 2, 4)).tolist() == [[[1e-6, 1e-6]]]


def test_the_second_version_takes_the_heads_that_look_most_at_the_image():
    cues = make_cues(2)
    raters = relevant_words(cues.projected, cues.prompt, cues.prompt_valid)
    factor = distance_factor(cues.prompt_rotary, cues.rotary)
    for heads in (1, 3, 4, 14):
        found = build("sparsevlm", version="v2", heads=heads).rank(cues)["raters"]
        for row in range(2):
            rows = (cues.prompt_attention[row].double() / factor[row])[:, raters[row]]
            looks = rows.sum((1, 2)).tolist()
            most = sorted(range(4), key=lambda head: -looks[head])[:heads]
            np.testing.assert_allclose(found[row], rows[most].mean((0, 1)), rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": "v3"}, "version must be one of v1, v2; got 'v3'"),
        ({"setting": 65}, "setting must be one of 64, 96, 128, 192, got 65"),
        ({"setting": "64"}, "setting must be an int, got '64'"),
        ({"heads": 0}, "heads must be at least 1, got 0"),
        ({"positions": "gone"}, "positions must be one of original, renumbered; got 'gone'"),
        ({"layers": (2, 3)}, "layers and cuts must be 3, as the published counts are, got 2"),
        ({"cuts": (2,)}, "layers and cuts must be 3, as the published counts are, got 1"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        methods.make("sparsevlm", keep=4, **fields)
