"""Step pictures, what they are drawn from, and the small measurements beside them."""

import math

import numpy as np
import pytest
import torch

from lib.pruning import methods, selection
from lib.pruning.base import Cues
from lib.pruning.cues import decoupled_similarity
from lib.pruning.merging import average_into_kept
from lib.study.pages import tokens as pictures
from lib.study.pages.looks import FONT
from lib.study.parity import oracles
from lib.study.scenes import capture, cue_measures

GRID = (4, 5)
TOKENS = GRID[0] * GRID[1]
IMAGE = np.zeros((32, 40, 3), dtype=np.uint8)


@pytest.fixture
def cues():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2, [True] * 5 + [False]])
    return Cues(
        grid=GRID,
        features=draw(3, TOKENS, 8),
        patches=draw(3, TOKENS, 16),
        image=draw(3, 16),
        tokens=draw(3, 6, 16),
        sentence=draw(3, 16),
        text_valid=valid,
        text_special=~valid,
        text_importance=draw(3, 6).abs(),
        attention=draw(3, 2, TOKENS).softmax(-1),
        keys=draw(3, TOKENS, 8) + 2,
    )


def test_heat_frames_tokens_and_boxes():
    figure, axes = pictures.panels(3, 2)
    assert len(figure.axes) == 4
    ax = pictures.heat(
        axes[0], np.arange(TOKENS), GRID, "map", size=(32, 40), boxes=[(0, 0, 8, 8)], framed=[6], bar=True
    )
    corners = [patch.get_xy() for patch in ax.patches]
    assert corners == [(8.0, 8.0), (8.0, 8.0), (0, 0)]
    low, high = pictures.heat(axes[1], np.arange(TOKENS) - 3.0, GRID, signed=True).images[0].get_clim()
    assert low == -high == -(TOKENS - 4)
    with pytest.raises(ValueError, match=r"values must have 20 entries for grid \(4, 5\)"):
        pictures.heat(axes[2], np.arange(3), GRID)


def test_kept_panels_show_the_picture_first():
    figure = pictures.kept_panels(IMAGE, {"a": [0], "b": [1, 2]}, GRID, first="what")
    assert [ax.get_title() for ax in figure.axes[:3]] == ["what", "a", "b"]
    assert len(figure.axes[2].patches) == 2 * 2


def test_branches_numbers_and_merging_land_on_their_tokens():
    _, axes = pictures.panels(3, 3)
    pictures.two_branches(axes[0], IMAGE, [0], [6, 19], GRID)
    assert [len(dots.get_offsets()) for dots in axes[0].collections] == [1, 2]
    assert axes[0].collections[0].get_offsets().tolist() == [[4.0, 4.0]]
    pictures.numbered(axes[1], [19, 0], GRID, (32, 40))
    assert [(text.get_text(), text.get_position()) for text in axes[1].texts] == [
        ("1", (36.0, 28.0)),
        ("2", (4.0, 4.0)),
    ]
    assert axes[1].texts[0].get_fontsize() >= FONT - 1
    centres = np.full(TOKENS, 7)
    pictures.merge_map(axes[2], IMAGE, centres, GRID)
    lines, dots = axes[2].collections
    assert len(lines.get_segments()) == TOKENS
    assert {tuple(segment[1]) for segment in lines.get_segments()} == {(20.0, 12.0)}
    assert len(dots.get_offsets()) == 1


def test_overlay_marks_kept_tokens_and_boxes():
    image = np.zeros((96, 96, 3), dtype=np.uint8)
    ax = pictures.kept_overlay(image, [0, 13], (12, 12), boxes=[(0, 0, 16, 16)])
    assert len(ax.patches) == 2 * 2 + 1
    assert ax.patches[2].get_xy() == (8.0, 8.0)
    pictures.kept_overlay(image, [], (12, 12), scores=np.arange(144))
    with pytest.raises(ValueError, match=r"kept must lie in 0\.\.143"):
        pictures.kept_overlay(image, [144], (12, 12))
    with pytest.raises(ValueError, match="scores must have 144 values"):
        pictures.kept_overlay(image, [0], (12, 12), scores=[1.0])


def test_photograph_is_a_square_that_ships():
    photo = pictures.photograph("coffee", side=64)
    assert photo.shape == (64, 64, 3)
    assert photo.dtype == np.uint8
    with pytest.raises(ValueError, match=r"got 'nowhere'; known: .*coffee"):
        pictures.photograph("nowhere")


def test_closed_form_is_the_limit_of_a_flat_softmax(cues):
    parts = (cues.patches, cues.tokens, cues.image, cues.sentence, cues.text_valid)
    flat = decoupled_similarity(*parts, scale=1e-6)
    words = cues.text_valid.sum(-1, keepdim=True)
    expected = cue_measures.closed_form(cues) / (TOKENS * words)
    torch.testing.assert_close(flat.double(), expected, rtol=1e-4, atol=1e-8)
    found = cue_measures.flatness(cues, (1e-6, 100.0), keep=5).set_index(["features", "scale"])
    assert found.loc[("unit length", 1e-6), "mean"] == pytest.approx(1, abs=1e-6)
    assert found.loc[("unit length", 1e-6), "shared"] == 1
    assert found["mean"].min() < 0.99
    assert found.loc[("raw", 100.0), "log10_factor"] > found.loc[("unit length", 100.0), "log10_factor"] > 0
    assert (cue_measures.times(math.log10(1.25)), cue_measures.times(54.6)) == ("1.250", "10^55")


def test_padding_words_do_not_reach_the_closed_form(cues):
    other = cue_measures.other_question(cues)
    assert torch.equal(other.tokens[1], cues.tokens[0])
    assert torch.equal(other.patches, cues.patches)
    before = cue_measures.closed_form(cues)
    cues.tokens[~cues.text_valid] = 9.0
    torch.testing.assert_close(cue_measures.closed_form(cues), before)


def test_replay_follows_the_suppression(cues):
    method = methods.AdaptPrune(keep=7)
    choice = method.choose(cues)
    fade = cue_measures.fading(method, cues.keys, GRID)
    widths = (method.radius, method.sigma_distance, method.sigma_similarity)
    picked = selection.adaptive_nms(choice.scores["corrected"], cues.keys, GRID, 7, *widths, order="picked")
    for row in range(3):
        picks = picked[row].tolist()
        maps = cue_measures.replay(choice.scores["corrected"][row], fade[row], picks)
        assert maps.shape == (8, TOKENS)
        assert cue_measures.picked_in_order(maps, picks)
        assert not cue_measures.picked_in_order(maps, picks[::-1])
        assert maps[1][picks[0]] == pytest.approx(0, abs=1e-6)
        assert sorted(picks) == choice.kept[row].tolist()


def test_nearest_kept_is_the_merging(cues):
    kept = torch.tensor([2, 5, 11])
    centres = cue_measures.nearest_kept(cues.features[0], kept)
    merged = average_into_kept(cues.features[:1], kept[None])[0].numpy()
    for place, centre in enumerate(kept.tolist()):
        mean = cues.features[0].numpy()[centres == centre].mean(0)
        np.testing.assert_allclose(mean, merged[place], rtol=1e-5, atol=1e-6)


def test_crowding_equals_plain_loops(cues):
    kept = torch.tensor([[0, 1, 19], [4, 9, 14], [0, 7, 8]])
    found = cue_measures.crowding(kept, cues.keys, GRID)
    apart, unit = cue_measures.distances(GRID), oracles.unit(cues.keys.numpy())
    for row, tokens in enumerate(kept.tolist()):
        pairs = [[(i, j) for j in tokens if j != i] for i in tokens]
        assert found["nearest"][row] == pytest.approx(np.mean([min(apart[p] for p in own) for own in pairs]))
        alike = [max(unit[row, i] @ unit[row, j] for i, j in own) for own in pairs]
        assert found["alike"][row] == pytest.approx(np.mean(alike), abs=1e-5)


def test_likeness_by_distance_separates_content_from_place(cues):
    same = torch.ones(2, TOKENS, 4)
    assert np.allclose(cue_measures.likeness_by_distance(same, GRID), 1)
    assert np.allclose(cue_measures.likeness_by_distance(same, GRID, -same), -1)
    assert cue_measures.likeness_by_distance(same, GRID).shape == (2, max(GRID) - 1)


def test_small_measures():
    kept, others = torch.tensor([[0, 3], [1, 2]]), torch.tensor([[3, 4, 5], [0, 4, 5]])
    assert cue_measures.shared(kept, others).tolist() == [0.5, 0.0]
    assert cue_measures.on_mask(kept, torch.tensor([[True, False, False, True], [False] * 4])).tolist() == [
        1.0,
        0.0,
    ]
    assert cue_measures.border(GRID).sum() == 14
    assert cue_measures.distances(GRID)[0, TOKENS - 1] == 5.0
    words = [cue_measures.side({"low": low, "high": low + 1}, 0) for low in (1, -2, -0.5)]
    assert words == ["above", "below", "not clearly different from"]
    flat = cue_measures.rank_correlations(
        torch.tensor([[1.0, 2, 3], [1, 1, 1]]), torch.tensor([[1.0, 4, 9], [1, 2, 3]])
    )
    assert flat[0] == pytest.approx(1)
    assert np.isnan(flat[1])


def test_switches_tell_every_field_with_its_origin():
    table = cue_measures.switches(methods.DeSAP)
    assert {"share", "similarity", "attention", "aligned", "merge", "saliency_layer"} <= set(table["field"])
    assert table.set_index("field").loc["share"].tolist() == ["0.5", "paper section 4.3: k1 = k2 = K / 2"]
    assert (table["origin"] != "").all()
    assert "layer" in set(cue_measures.switches(methods.AdaptPrune)["field"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"source": "now"}, "source must be one of recorded, live; got 'now'"),
        ({"suite": "all"}, "suite must be one of .*; got 'all'"),
        ({"keep": 0}, "keep must be at least 1, got 0"),
        ({"keep": 145}, "keep must be at most 144, got 145"),
        ({"picture": 300}, "picture must be at most 299, got 300"),
        ({"questions": -1}, "questions must be at least 0, got -1"),
        ({"questions": 1}, "questions must be 0 .* got 1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    good = {"source": "recorded", "questions": 0, "seed": 0, "keep": 16, "picture": 0, "suite": "exists"}
    capture.check_settings(**good)
    with pytest.raises(ValueError, match=message):
        capture.check_settings(**good | wrong)
