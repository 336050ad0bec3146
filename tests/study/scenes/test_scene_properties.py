"""Properties of real models, looked for in the embedded one: the arithmetic of each measure and of the table."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from lib.study.pages import looks, n81_properties
from lib.study.scenes import capture, properties
from lib.study.stats import Interval


def test_concentration_is_one_where_a_map_is_even():
    inside = torch.tensor([[True, False, False, False], [False] * 4])
    even, peaked = torch.ones(2, 4), torch.tensor([[3.0, 1.0, 0.0, 0.0]] * 2)
    assert properties.concentration(even, inside)[0] == 1
    assert properties.concentration(peaked, inside)[0] == pytest.approx(3)
    assert np.isnan(properties.concentration(even, inside)[1])


def test_areas_are_one_for_a_right_map_and_none_without_both_kinds():
    maps = torch.tensor([[0.9, 0.8, 0.1], [0.1, 0.8, 0.9], [0.1, 0.2, 0.3]])
    inside = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    found = properties.areas(maps, inside)
    assert found[:2].tolist() == [1.0, 0.0]
    assert np.isnan(found[2])


def test_neighbours_that_repeat_each_other_only_within_a_picture():
    own = torch.nn.functional.one_hot(torch.tensor([0, 1]), 2).double()  # each picture one direction
    features = own[:, None].expand(-1, 9, -1)
    assert properties.neighbour_excess(features, (3, 3)).tolist() == [1.0, 1.0]
    same = torch.ones(2, 9, 4)
    assert properties.neighbour_excess(same, (3, 3)) == pytest.approx([0, 0])


def test_residual_is_a_difference_image_by_image():
    rows = [("cosine_residual", 0.9, "a"), ("cosine_attention", 0.2, "a")]
    rows += [("cosine_residual", 0.5, "b"), ("cosine_attention", 0.7, "b")]
    frame = pd.DataFrame(rows, columns=["measure", "value", "image_id"])
    found = properties.residual_rows(frame.assign(question_id=frame["image_id"], suite="scene"))
    assert found.set_index("image_id")["value"].round(6).to_dict() == {"a": 0.7, "b": -0.2}


@pytest.mark.parametrize(
    ("low", "high", "level", "expected", "said"),
    [
        (1.1, 1.3, 1.0, "above", "like real models"),
        (1.1, 1.3, 1.0, "below", "unlike"),
        (0.9, 1.3, 1.0, "above", "unclear"),
        (0.47, 0.53, 0.5, "near", "like real models"),
        (0.56, 0.60, 0.5, "near", "unlike"),
        (0.52, 0.58, 0.5, "near", "unclear"),
    ],
)
def test_a_property_is_found_when_the_whole_interval_says_so(low, high, level, expected, said):
    assert (
        properties._like(Interval((low + high) / 2, low, high, p=1.0, n=9, clusters=9), level, expected)
        == said
    )


def test_every_known_property_is_measured_and_drawn():
    loaded = capture.quiet_model()
    measures = properties.measure(loaded, 10)
    assert set(measures["measure"]) == set(properties.MEASURES.values())
    assert measures["value"].notna().all()
    looks.theme()
    found = properties.table(measures)
    figure = n81_properties.draw(found)
    figure.draw_without_rendering()
    plt.close(figure)
    with pytest.raises(ValueError, match="records hold no measure real_residual"):
        properties.table(measures[measures["measure"] != "real_residual"])
