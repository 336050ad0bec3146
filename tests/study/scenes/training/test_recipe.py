"""The recipes: today's at 12, a finer grid at 24 whose frame, words and start fit."""

import numpy as np
import pytest
import torch

from lib.models import embedded
from lib.models.architectures import Sizes
from lib.study.scenes.layout import SUITES, Layout
from lib.study.scenes.questions import NAMED, benchmark, caption, evidence_mask, place_of
from lib.study.scenes.render import generate
from lib.study.scenes.training import train_decoder, train_tower
from lib.study.scenes.training.recipe import RECIPES, WHOLE, Recipe, recipe_of


def test_twelve_is_the_shipped_recipe():
    recipe = recipe_of(12)
    assert (recipe.sizes, recipe.frame) == (Sizes(), Layout())
    assert recipe.tower(0.3) == train_tower.curriculum(0.3)
    assert recipe.decoder(0.3) == train_decoder.curriculum(0.3)


def test_twenty_four_is_a_larger_one():
    recipe = recipe_of(24)
    with torch.device("meta"):
        model = embedded.llava_model(recipe.sizes, embedded.clip_model(recipe.sizes, 90), 90)
    assert model.config.image_seq_length == 576
    assert 3e6 < sum(parameter.numel() for parameter in model.parameters()) < 10e6
    for phases in (recipe.tower(0.01), recipe.decoder(0.01)):
        layouts = [layout for phase in phases for _, layout in phase.layouts]
        assert recipe.frame in layouts
        assert all(layout.cells <= recipe.frame.cells for layout in layouts)
    for phase in recipe.decoder():
        assert sum(share for share, _ in phase.layouts) == pytest.approx(1)


def test_bad_recipes_are_named():
    with pytest.raises(ValueError, match="grid must be one of 12, 24, got 16"):
        recipe_of(16)
    with pytest.raises(ValueError, match=r"frame must be 96 pixels in patches of 8, .* got 192"):
        Recipe(sizes=Sizes(), frame=WHOLE, tower=tuple, decoder=tuple)


def test_a_larger_picture_is_asked_about_in_its_own_frame():
    scenes, asked = benchmark("validation", 6, 0, WHOLE)
    assert scenes.images.shape == (6, 192, 192, 3)
    told = set()
    for found in asked:
        by_suite = {question.suite: question for question in found}
        assert set(by_suite) == set(SUITES)
        left, top, right, bottom = by_suite["where"].boxes[0]
        vertical = "bottom" if (top + bottom) / 2 > 96 else "top"
        horizontal = "right" if (left + right) / 2 > 96 else "left"
        assert by_suite["where"].answer == f"{vertical}-{horizontal}"
        told.add(by_suite["where"].answer)
        share = evidence_mask(by_suite["attribute"].boxes, scenes.layout.grid).mean()
        assert 4 / 576 <= share <= 16 / 576
    assert len(told) > 1
    box = np.array([60, 60, 80, 80])
    assert (place_of(box), place_of(box, frame=WHOLE)) == ("bottom-right", "top-left")
    assert place_of(box, (6, 0), WHOLE) == "bottom-left"


def test_a_backdrop_wider_than_its_strip_is_mirrored_and_varies():
    images = generate(np.random.default_rng(1), 40, WHOLE, "validation").images
    assert images.shape == (40, 192, 192, 3)
    assert len({image.tobytes() for image in images}) == 40


def test_captions_of_large_pictures_fit_the_text_tower():
    rng = np.random.default_rng(0)
    scenes = generate(rng, 60, WHOLE)
    texts = [caption(scenes, row, rng, corner=(0, 0), frame=WHOLE) for row in range(60)]
    assert max(len(text.split()) for text in texts) + 2 <= 77
    assert max(text.count(",") for text in texts) + 1 == NAMED
    full = caption(scenes, 0, rng, everything=True, corner=(0, 0), frame=WHOLE)
    assert full.count(",") + 1 == WHOLE.items


@pytest.mark.parametrize("grid", sorted(RECIPES))
def test_a_fresh_tower_looks_at_neighbours(grid):
    sizes = recipe_of(grid).sizes
    torch.manual_seed(0)
    vision = embedded.clip_model(Sizes(image=sizes.image, vision_layers=1, text_layers=1), 20).vision_model
    embedded.start_local(vision)
    attention = vision.encoder.layers[0].self_attn
    with torch.no_grad():
        states = vision.pre_layrnorm(vision.embeddings.position_embedding.weight[1:])
        states = vision.encoder.layers[0].layer_norm1(states)
        query, key = (part(states).unflatten(-1, (8, 16)) for part in (attention.q_proj, attention.k_proj))
        most = torch.einsum("nhd,mhd->hnm", query, key).argmax(-1).unflatten(1, (grid, grid))
    offsets = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)]
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    off = [
        torch.maximum((most[head] // grid - rows - down).abs(), (most[head] % grid - columns - across).abs())
        for head, (down, across) in enumerate(offsets)
    ]
    inside = torch.stack(off)[:, 1:-1, 1:-1]
    assert (
        inside <= 1
    ).float().mean() > 0.9  # random weights blur a neighbour, but nothing far looks like one
    assert (inside == 0).float().mean() > 0.6
