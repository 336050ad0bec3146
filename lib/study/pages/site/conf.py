"""Tell Sphinx how to build the report: nothing is executed and nothing is fetched, neither here nor by a reader."""

from pathlib import Path

from docutils.nodes import SkipNode, math, math_block
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

project = "Which visual tokens can go?"
author = "The visual token pruning study authors"
html_title = project
extensions = ["myst_nb"]
root_doc = "index"
exclude_patterns: list[str] = []

nb_execution_mode = "off"  # pages show what was committed
nb_merge_streams = True
myst_enable_extensions = ["attrs_inline", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Headings inside notebook outputs start where their cell stands, not at the page's top level.
suppress_warnings = ["myst.header", "misc.highlighting_failure"]

html_theme = "furo"
html_static_path = [str(Path(__file__).resolve().parent / "static")]
html_css_files = ["report.css"]
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = "mathml"
templates_path: list[str] = []


def _inline(translator: HTML5Translator, node: math) -> None:
    translator.body.append(tex2mathml(node.astext()))
    raise SkipNode  # the formula's text is written already


def _block(translator: HTML5Translator, node: math_block) -> None:
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise SkipNode


def setup(app: Sphinx) -> None:
    """Write formulas as MathML, which browsers draw themselves: no script and no font to fetch."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
