"""The figure of notebook 90: every claim with its verdict."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from lib.study.claims import VERDICTS
from lib.study.pages.looks import FONT, VERDICT_COLOURS, VERDICT_LETTERS, axes_of, needs


def verdict_strip(claims: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the register as one strip: a square a claim, coloured and lettered by verdict."""
    needs(claims, "id", "verdict")
    ax = axes_of(ax, (max(6.4, 0.42 * len(claims)), 1.5))
    words = [*VERDICTS, ""]
    for place, (claim, verdict) in enumerate(zip(claims["id"], claims["verdict"], strict=True)):
        colour = VERDICT_COLOURS.get(verdict, (1.0, 1.0, 1.0))
        ax.add_patch(Rectangle((place, 0), 0.92, 1, facecolor=colour, edgecolor="0.4", linewidth=0.6))
        ax.text(
            place + 0.46,
            0.5,
            VERDICT_LETTERS[verdict],
            ha="center",
            va="center",
            fontsize=FONT,
            fontweight="bold",
        )
        ax.text(place + 0.46, 1.12, claim, ha="center", va="bottom", fontsize=FONT, rotation=60)
    shown = [word for word in words if word in set(claims["verdict"])]
    handles = [
        Rectangle((0, 0), 1, 1, facecolor=VERDICT_COLOURS.get(word, (1, 1, 1)), edgecolor="0.4")
        for word in shown
    ]
    names = [f"{VERDICT_LETTERS[word]}  {word or 'not run yet'}" for word in shown]
    ax.legend(handles, names, loc="upper center", bbox_to_anchor=(0.5, -0.05), ncols=3, frameon=False)
    ax.set(xlim=(-0.1, len(claims)), ylim=(0, 1.9))
    ax.axis("off")
    return ax
