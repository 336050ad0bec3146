"""Tell and draw which properties of large models the embedded one has."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lib.study.pages.forest import point_intervals
from lib.study.pages.looks import BLUE, GREY, ORANGE
from lib.study.wording import intervals, listing


def draw(found: pd.DataFrame) -> Figure:
    """Draw each property's distance from its level, in units of its own, one small panel a row."""
    colours = {"like real models": BLUE, "unlike": ORANGE, "unclear": GREY}
    figure, axes = plt.subplots(
        len(found), 1, figsize=(7.8, 0.4 + 0.72 * len(found)), layout="constrained", squeeze=False
    )
    for ax, row in zip(axes.flat, found.itertuples(), strict=True):
        arrow = {"above": "→", "below": "←", "near": "="}[row.expected]
        colour = colours[row.found]
        ax.axvline(row.level, color="0.3", linewidth=1.2, linestyle=(0, (4, 2)))
        face = colour if row.found == "like real models" else "white"
        point_intervals(
            ax,
            found.loc[[row.Index]],
            [0],
            colour=colour,
            marker="o",
            size=7,
            capsize=3,
            markerfacecolor=face,
        )
        reach = 1.25 * max(abs(row.low - row.level), abs(row.high - row.level), 0.02)
        ax.set(xlim=(row.level - reach, row.level + reach), yticks=[], ylim=(-1, 1))
        ax.set_title(
            f"{row.property} ({arrow} expected): {row.estimate:.2f}, {row.found}", loc="left", color="0.1"
        )
        sns.despine(ax=ax, left=True)
    like = int((found["found"] == "like real models").sum())
    figure.suptitle(
        f"{like} of {len(found)} properties of real models are found in the embedded one", x=0.02, ha="left"
    )
    return figure


def answer_sentence(found: pd.DataFrame) -> str:
    """Say how many properties are as in real models, and which are not."""
    unlike = found.loc[found["found"] == "unlike", "property"]
    told = f"; unlike: {listing(unlike)}" if len(unlike) else ""
    like = int((found["found"] == "like real models").sum())
    return (
        f"**Answer.** {like} of {len(found)} properties that large models are known for are found in the embedded one{told}. "
        "What follows for each claim stands in the table; an accuracy or a retention measured here is never that of a 7B model."
    )


def shown(found: pd.DataFrame) -> pd.DataFrame:
    """The table for readers: property, level, estimate with interval, what was found, and what it means where it is unlike."""
    means = found["if_unlike"].where(found["found"] != "like real models", "")
    told = found["expected"] + " " + found["level"].map("{:g}".format)
    columns = {
        "property": found["property"],
        "quantity": found["quantity"],
        "expected": told,
        "n": found["n"],
    }
    columns |= {
        "measured": intervals(found, ".2f"),
        "found": found["found"],
        "what it means for the claims": means,
    }
    return pd.DataFrame(columns).set_index("property")
