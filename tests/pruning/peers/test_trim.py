"""TRIM: the raw product, its sign, and the mean of what goes."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from lib.pruning import methods
from lib.pruning.methods import Cues, Needs
from testkit.builders import chosen, make_cues


def test_neither_side_of_the_product_is_scaled():
    patches = torch.tensor([[[-1.0, 0.0], [-3.0, 4.0]]])
    cues = Cues(grid=(1, 2), features=patches, patches=patches, sentence=torch.tensor([[1.0, 0.0]]))
    assert chosen(methods.make("trim", keep=1), cues) == [[1]]
    assert chosen(methods.make("trim", keep=1, normalised=True), cues) == [[0]]


def test_what_the_question_picks_and_the_mean_of_the_rest():
    cues = make_cues(5)
    choice = methods.make("trim", keep=7).choose(cues)
    for row in range(2):
        product = cues.patches[row].double().numpy() @ cues.sentence[row].double().numpy()
        order = np.argsort(product, kind="stable")[:7].tolist()
        assert choice.kept[row].tolist() == sorted(order)
        outside = [i for i in range(36) if i not in order[:-1]]
        mean = cues.features[row].numpy()[outside].mean(0)
        place = sorted(order).index(order[-1])
        np.testing.assert_allclose(choice.features[row, place].numpy(), mean, atol=1e-5)
    assert methods.make("trim", keep=7, aggregate=False).choose(cues).features is None


def test_long_questions_are_cut_off_and_longer_patches_count_more():
    assert methods.make("trim", keep=7).needs() == Needs(
        patches="penultimate", text=True, long_text="truncated"
    )
    cues = make_cues(6)
    longer = torch.arange(36.0) ** 2 + 1
    stretched = dataclasses.replace(cues, patches=cues.patches * longer[:, None])
    assert chosen(methods.make("trim", keep=7), cues) != chosen(methods.make("trim", keep=7), stretched)
    cosine = methods.make("trim", keep=7, normalised=True)
    assert chosen(cosine, cues) == chosen(cosine, stretched)
