"""Show a notebook's figures, each saved beside its numbers, and tell which ones a notebook shows.

A shown figure carries its name in the metadata of its output, so that a reader of the notebook's file, as the report
is, need not read its code.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from nbformat import NotebookNode

from lib.study.pages.looks import save

FIGURE = "figure"  # key of the metadata of an output


@dataclass(frozen=True)
class Page:
    """A notebook as its reader sees it.

    Attributes
    ----------
    figures
        Where figures are saved: `lib.paths.places(output).figures`.
    """

    figures: Path

    def show(self, figure: Figure, name: str, frame: pd.DataFrame, caption: str = "") -> None:
        """Save a figure as PNG, SVG and its numbers as CSV, show it, and say its caption where there is one.

        Parameters
        ----------
        figure, name, frame
            As `lib.study.pages.looks.save` takes them.
        caption
            Markdown.
        """
        save(figure, name, frame, self.figures)
        display(figure, metadata={FIGURE: name})
        plt.close(figure)
        if caption:
            display(Markdown(caption))


def shown(outputs: Sequence[NotebookNode]) -> list[tuple[str, str]]:
    """List the figures among a cell's outputs: name and caption, the first italic text after it, where there is one."""
    found = []
    for place, out in enumerate(outputs):
        if name := out.get("metadata", {}).get(FIGURE):
            said = (after.get("data", {}).get("text/markdown", "").strip() for after in outputs[place:])
            captions = (text.strip("*") for text in said if re.fullmatch(r"\*[^*].*\*", text, re.DOTALL))
            found.append((name, next(captions, "")))
    return found
