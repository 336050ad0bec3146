"""A shown figure lies beside its numbers and tells its name to whoever reads the notebook's outputs."""

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown
from nbformat.v4 import new_output

from lib.study.pages import page


def test_a_shown_figure_is_saved_named_captioned_and_closed(tmp_path, monkeypatch):
    outputs = []

    def display(thing, metadata=None):
        data = {"text/markdown": thing.data} if isinstance(thing, Markdown) else {"image/png": ""}
        outputs.append(new_output("display_data", data, metadata=metadata or {}))

    monkeypatch.setattr(page, "display", display)
    figure, ax = plt.subplots()
    ax.plot([0, 1], [0, 1])
    mine = page.Page(tmp_path)
    mine.show(figure, "11_line", pd.DataFrame({"x": [0, 1]}), "*A line.*")
    mine.show(plt.figure(), "11_bare", pd.DataFrame({"x": [0]}))
    assert not plt.get_fignums()
    names = {f"{name}.{kind}" for name in ("11_line", "11_bare") for kind in ("csv", "png", "svg")}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert [list(out.data) for out in outputs] == [["image/png"], ["text/markdown"], ["image/png"]]
    assert page.shown(outputs) == [("11_line", "A line."), ("11_bare", "")]


def test_a_caption_is_the_first_italic_text_after_its_figure():
    def said(text):
        return new_output("display_data", {"text/markdown": text})

    def drawn(name):
        return new_output("display_data", {"image/png": ""}, metadata={"figure": name})

    outputs = [
        said("*before*"),
        drawn("a"),
        drawn("b"),
        new_output("stream", text="printed"),
        said("**Answer.**"),
        said("*of both*"),
    ]
    assert page.shown(outputs) == [("a", "of both"), ("b", "of both")]
    assert page.shown([new_output("display_data", {"image/png": ""})]) == []
