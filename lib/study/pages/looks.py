"""Fix how figures look: one colour, marker and dash a method, one theme, and files that come out the same."""

import colorsys
import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.files import whole
from lib.study.claims import VERDICTS
from lib.study.rounding import rounded

BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, PINK, GREY, YELLOW, SKY = sns.color_palette("colorblind")
_SALT = "visual-token-pruning-study"  # the same SVG bytes in every run
FONT = 9.5  # points at final size; no figure is drawn to be shrunk


class Look(NamedTuple):
    """How a method appears in every figure: never by colour alone."""

    label: str
    colour: tuple[float, float, float]
    marker: str
    dashes: tuple[int, ...] | str


LOOKS: Mapping[str, Look] = MappingProxyType(
    {
        "none": Look("unpruned", (0.15, 0.15, 0.15), "_", ""),
        "blind": Look("no visual token", (0.45, 0.45, 0.45), "x", (1, 2)),
        "random": Look("random", GREY, "P", (1, 1)),
        "uniform": Look("uniform grid", BROWN, "p", (2, 1)),
        "oracle": Look("oracle", GREEN, "*", (6, 2)),
        "cls": Look("[CLS] top-k", SKY, "v", (4, 1)),
        "fastv": Look("FastV", ORANGE, "s", (3, 1, 1, 1)),
        "desap": Look("DeSAP", BLUE, "o", ""),
        "adaptprune": Look("AdaptPrune", PURPLE, "D", (5, 1)),
        "centre_crop": Look("centre crop", (0.62, 0.55, 0.45), "h", (2, 2)),
        "pool": Look("pooling", (0.40, 0.30, 0.20), "H", (1, 3)),
        "downsample": Look("smaller image", (0.75, 0.70, 0.30), "+", (1, 2, 3, 2)),
        "visionzip": Look("VisionZip", RED, "^", (4, 1, 1, 1)),
        "vispruner": Look("VisPruner", PINK, "<", (5, 2)),
        "trim": Look("TRIM", YELLOW, ">", (3, 2)),
        "divprune": Look("DivPrune", (0.10, 0.35, 0.30), "d", (6, 1)),
        "cdpruner": Look("CDPruner", (0.35, 0.75, 0.65), "8", (2, 1, 1, 1)),
        "holov": Look("HoloV", (0.45, 0.05, 0.10), "3", (7, 2)),
        "dart": Look("DART", (0.95, 0.60, 0.40), "1", (1, 1, 4, 1)),
        "tome": Look("ToMe", (0.30, 0.35, 0.60), "2", (3, 3)),
        "pyramiddrop": Look("PyramidDrop", (0.80, 0.35, 0.10), "$P$", (4, 2, 1, 2)),
        "sparsevlm": Look("SparseVLM", (0.20, 0.50, 0.75), "4", (2, 3)),
        "multicue": Look("all four cues", (0.55, 0.65, 0.10), "X", ""),
    }
)
# Arms whose changed field says less than these words.
ARMS: Mapping[str, str] = MappingProxyType({"sparsevlm/layers=(2, 3, 4)": "SparseVLM, cuts one layer later"})
VERDICT_LETTERS: Mapping[str, str] = MappingProxyType(dict(zip((*VERDICTS, ""), "SPNIT-", strict=True)))
VERDICT_COLOURS: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    dict(zip(VERDICTS, (GREEN, SKY, ORANGE, YELLOW, (0.8, 0.8, 0.8)), strict=True))
)


def theme() -> None:
    """Set the one look of all figures; call it once in a notebook."""
    sns.set_theme(context="paper", style="ticks", palette="colorblind")
    mpl.rcParams.update(
        {
            "font.size": FONT,
            "axes.labelsize": FONT,
            "axes.titlesize": FONT + 1,
            "xtick.labelsize": FONT,
            "ytick.labelsize": FONT,
            "legend.fontsize": FONT,
            "legend.title_fontsize": FONT,
            "figure.dpi": 110,
            "savefig.dpi": 160,
            "svg.hashsalt": _SALT,
            "svg.fonttype": "none",
        }
    )


def look(arm: str) -> Look:
    """Return the look of an arm: its method's, labelled with what it changes and which question it was told.

    A method that is not in `LOOKS` gets a look made of its name alone, the same in every figure.
    """
    rest, _, told = arm.partition(" (")
    name, _, changed = rest.partition("/")
    style = LOOKS.get(name) or _look_of_its_own(name)
    words = [style.label, *(part for part in (changed, told.rstrip(")")) if part)]
    if rest in ARMS:
        words[:2] = [ARMS[rest]]
    return style._replace(label=", ".join(words))


def _look_of_its_own(name: str) -> Look:
    """A colour out of the name's hash and the name's first letter as marker, which no method of `LOOKS` wears."""
    first, second, third, fourth = hashlib.sha256(name.encode()).digest()[:4]
    letter = next((letter for letter in name.upper() if letter.isalnum()), "?")
    colour = colorsys.hls_to_rgb(first / 256, 0.28 + 0.2 * second / 256, 0.8)  # dark enough on white
    return Look(name.replace("_", " "), colour, f"${letter}$", (1 + third % 6, 1 + fourth % 3))


def axes_of(ax: Axes | None, size: tuple[float, float] = (6.4, 4.0)) -> Axes:
    """Where to draw: `ax`, or those of a new figure of `size` in inches."""
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def needs(frame: pd.DataFrame, *columns: str) -> None:
    """Refuse a frame without these columns with a ValueError that names them."""
    missing = sorted(set(columns) - set(frame.columns))
    if missing:
        raise ValueError(f"frame lacks the columns {missing}")


def save(figure: Figure, name: str, frame: pd.DataFrame, folder: Path | str) -> Path:
    """Write a figure as PNG and SVG and its numbers as CSV; the same input gives the same SVG bytes.

    Parameters
    ----------
    figure
        What to save.
    name
        File stem: claim id, underscore, slug.
    frame
        The plotted numbers; those of a figure in `lib.study.rounding.FIGURES` to its digits, as they should be drawn.
    folder
        Where to: `lib.paths.places(output).figures`.

    Returns
    -------
    Path
        The PNG file.
    """
    if not name or not set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"):
        raise ValueError(f"name must be letters, digits, - and _, got {name!r}")
    folder = Path(folder)
    with mpl.rc_context({"svg.hashsalt": _SALT}), whole(folder / f"{name}.svg") as part:
        figure.savefig(part, format="svg", metadata={"Date": None}, bbox_inches="tight")
    with whole(folder / f"{name}.png") as part:
        figure.savefig(part, format="png", metadata={"Software": None}, bbox_inches="tight")
    with whole(folder / f"{name}.csv") as part:
        rounded(name, frame).to_csv(part, index=False, lineterminator="\n", float_format="%.6g")
    return folder / f"{name}.png"
