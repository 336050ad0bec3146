"""The page of other models: the table is that of the code, published numbers are those printed."""

import matplotlib.pyplot as plt

from lib.models.anatomy import FAMILIES
from lib.study.pages import looks, n50_other_models


def test_every_accepted_class_has_a_row():
    table = n50_other_models.family_table()
    assert [f"{name}ForConditionalGeneration" for name in table.index] == list(FAMILIES)
    assert table.loc["Llava", "saliency"] == "[CLS] attention"
    assert table.loc["Qwen2_5_VL", "DeSAP's text similarity"] == "decoder's input space (ours)"
    assert table.loc["Qwen3VL", "cuts inside the decoder"] == "after its visual layers"


def test_published_numbers_are_those_printed():
    rows = n50_other_models.published().set_index(["model", "share", "method"])["retention"]
    assert rows["LLaVA-NeXT-7B", 11.1, "DeSAP"] == 98.0
    assert rows["Qwen2.5-VL-7B", 22.2, "FastV"] == 88.9
    assert rows["Video-LLaVA-7B", 50.0, "HoloV"] == round(50 * (71.0 / 70.2 + 56.5 / 57.3), 1)


def test_claims_that_wait_say_why():
    waiting = n50_other_models.waiting()
    assert (waiting["verdict"] == "not testable here").all()
    assert waiting["remark"].str.len().min() > 20
    assert "8 classes" in n50_other_models.answer_sentence()


def test_every_line_of_the_figure_is_in_it():
    looks.theme()
    rows = n50_other_models.published()
    figure = n50_other_models.draw(rows)
    figure.draw_without_rendering()
    (ax,) = figure.axes
    low, high = sorted(ax.get_ylim())
    assert all(low < place < high for place in ax.get_yticks())
    assert len(ax.get_yticks()) == len(rows) + rows.groupby(["model", "share"]).ngroups
    plt.close(figure)
