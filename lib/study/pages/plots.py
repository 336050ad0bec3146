"""Draw the study's figures: seaborn, one fixed look per method, intervals as given, numbers kept beside.

Each function takes a tidy frame, draws on one Axes and returns it; none reads a file. `save` writes PNG, SVG
and the plotted numbers as CSV.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from lib.study.claims import VERDICTS
from lib.study.pages.looks import FONT, LOOKS, ORANGE, VERDICT_COLOURS, VERDICT_LETTERS, look, save, theme
from lib.study.records import method_of

__all__ = [
    "LOOKS",
    "ablation_bars",
    "accuracy_curve",
    "kept_overlay",
    "look",
    "point_intervals",
    "save",
    "theme",
    "verdict_strip",
]


def _axes(ax: Axes | None, size: tuple[float, float] = (6.4, 4.0)) -> Axes:
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def _needs(frame: pd.DataFrame, *columns: str) -> None:
    missing = sorted(set(columns) - set(frame.columns))
    if missing:
        raise ValueError(f"frame lacks the columns {missing}")


def point_intervals(
    ax: Axes,
    rows: pd.DataFrame,
    places: Sequence[float],
    *,
    colour: tuple[float, float, float] | str,
    marker: str,
    size: float = 6.0,
    value: str = "estimate",
    **style: object,
) -> None:
    """Draw each row's value with its interval as a point on a line of its own.

    Parameters
    ----------
    rows
        Columns `value`, low and high.
    places
        Height of each row's line.
    size
        Of the marker in points; caps are half as wide, at most 3.
    style
        Further keywords of `Axes.errorbar`: label, markerfacecolor ...
    """
    _needs(rows, value, "low", "high")
    errors = np.abs(rows[["low", "high"]].to_numpy().T - rows[value].to_numpy())
    ax.errorbar(
        rows[value],
        places,
        xerr=errors,
        linestyle="none",
        marker=marker,
        color=colour,
        capsize=min(size / 2, 3),
        markersize=size,
        **style,
    )


def _curve(ax: Axes, rows: pd.DataFrame, arm: str) -> None:
    style = look(arm)
    errors = np.abs(rows[["low", "high"]].to_numpy().T - rows["accuracy"].to_numpy())
    ax.errorbar(
        rows["keep"],
        rows["accuracy"],
        yerr=errors,
        color=style.colour,
        fmt="none",
        capsize=2.5,
        linewidth=1.1,
    )
    line = {"linestyle": "-"} if style.dashes == "" else {"dashes": style.dashes}
    ax.plot(
        rows["keep"],
        rows["accuracy"],
        color=style.colour,
        marker=style.marker,
        markersize=6,
        linewidth=1.5,
        label=style.label,
        **line,
    )


def _level(ax: Axes, row: pd.Series, arm: str) -> None:
    """Draw an arm without a budget as a line over the whole width, its interval as a band."""
    style = look(arm)
    ax.axhspan(row["low"], row["high"], color=style.colour, alpha=0.10, linewidth=0)
    dashes = "-" if arm == "none" else (0, (1, 2))
    ax.axhline(row["accuracy"], color=style.colour, linestyle=dashes, linewidth=1.3, label=style.label)


def _published(ax: Axes, published: pd.DataFrame) -> None:
    _needs(published, "method", "keep", "accuracy")
    hollow = {"facecolors": "none", "edgecolors": "0.5", "s": 45}
    for method, points in published.groupby("method"):
        marker = look(method).marker if method in LOOKS else "o"
        ax.scatter(points["keep"], points["accuracy"], marker=marker, **hollow)
    ax.scatter([], [], marker="o", label="published, other model", **hollow)


def _budget_ticks(ax: Axes, budgets: pd.Series) -> None:
    if len(budgets):
        ticks = sorted(set(budgets))
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks, [str(budget) for budget in ticks])
        ax.minorticks_off()


def accuracy_curve(
    table: pd.DataFrame,
    suite: str = "all",
    arms: Sequence[str] | None = None,
    published: pd.DataFrame | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw accuracy against kept tokens, one line an arm, with intervals.

    Parameters
    ----------
    table
        Rows of `lib.study.tables.accuracy_table` for one model.
    suite
        Which suite's rows.
    arms
        Arm labels to draw; None draws all arms without a changed field. The unpruned level, the level without
        any visual token and random tokens are drawn whenever the table has them.
    published
        Columns method, keep, accuracy: the papers' values in the unit of the table, as hollow grey markers.
    ax
        Where to draw; None makes a figure.
    """
    _needs(table, "method", "keep", "suite", "accuracy", "low", "high")
    rows = table[table["suite"] == suite]
    if rows.empty:
        raise ValueError(
            f"table has no rows of suite {suite!r}; known: {', '.join(sorted(set(table['suite'])))}"
        )
    # legends list methods in one order, whatever the order of rows; those without a fixed look come last
    order = list(LOOKS)

    def place(arm: str) -> tuple[int, str]:
        name = method_of(arm)
        return (order.index(name) if name in order else len(order), arm)

    present = sorted(set(rows["method"]), key=place)
    wanted = (
        [arm for arm in present if "/" not in arm] if arms is None else [*arms, "none", "blind", "random"]
    )
    ax = _axes(ax)
    for arm in [arm for arm in dict.fromkeys(wanted) if arm in present]:
        mine = rows[rows["method"] == arm].sort_values("keep")
        if arm in ("none", "blind"):
            _level(ax, mine.iloc[0], arm)
        else:
            _curve(ax, mine, arm)
    if published is not None:
        _published(ax, published)
    _budget_ticks(ax, rows.loc[~rows["method"].isin(["none", "blind"]), "keep"])
    ax.set(xlabel="visual tokens kept (log scale)", ylabel="accuracy (higher is better)")
    ax.set_title("all suites, equal weight" if suite == "all" else f"suite: {suite}")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    sns.despine(ax=ax)
    return ax


def ablation_bars(frame: pd.DataFrame, xlabel: str = "accuracy", ax: Axes | None = None) -> Axes:
    """Draw one bar a row with its interval, in the order given.

    Parameters
    ----------
    frame
        Columns arm (a label for `look`), estimate, low, high; optional label (text at the axis) and reference
        (the unpruned level or 0, drawn as a line).
    """
    _needs(frame, "arm", "estimate", "low", "high")
    ax = _axes(ax, (6.4, 0.9 + 0.42 * len(frame)))
    labels = frame["label"] if "label" in frame else frame["arm"].map(lambda arm: look(arm).label)
    places = np.arange(len(frame))
    sns.barplot(
        x=frame["estimate"].to_numpy(),
        y=places,
        orient="h",
        hue=places,
        palette=[look(arm).colour for arm in frame["arm"]],
        legend=False,
        errorbar=None,
        saturation=1,
        alpha=0.75,
        width=0.7,
        ax=ax,
    )
    errors = np.abs(frame[["low", "high"]].to_numpy().T - frame["estimate"].to_numpy())
    ax.errorbar(frame["estimate"], places, xerr=errors, fmt="none", ecolor="0.15", capsize=3, linewidth=1.2)
    if "reference" in frame:
        ax.axvline(frame["reference"].iloc[0], color="0.15", linewidth=1.1)
    ax.set_yticks(places, labels)
    ax.set(xlabel=f"{xlabel}, 95 % interval over images", ylabel="")
    sns.despine(ax=ax)
    return ax


def kept_overlay(
    image: np.ndarray,
    kept: Sequence[int],
    grid: tuple[int, int],
    scores: Sequence[float] | None = None,
    boxes: Sequence[tuple[float, float, float, float]] | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw which tokens of an image were kept: dropped ones are pale.

    Parameters
    ----------
    image
        [height, width, 3], uint8 or 0..1.
    kept
        Indices of kept tokens, row by row.
    grid
        Rows and columns of tokens.
    scores
        [rows * columns] values of one cue, drawn as a colour layer.
    boxes
        Evidence boxes as left, top, right, bottom in pixels.
    """
    rows, columns = grid
    kept = np.asarray(kept, dtype=int)
    if kept.size and not 0 <= kept.min() <= kept.max() < rows * columns:
        raise ValueError(f"kept must lie in 0..{rows * columns - 1}, got {kept.min()}..{kept.max()}")
    ax = _axes(ax, (3.2, 3.4))
    height, width = image.shape[:2]
    tall, wide = height / rows, width / columns
    ax.imshow(image, interpolation="nearest", extent=(0, width, height, 0))
    extent = (0, width, height, 0)
    if scores is not None:
        heat = np.asarray(scores, dtype=float)
        if heat.size != rows * columns:
            raise ValueError(f"scores must have {rows * columns} values for grid {grid}, got {heat.size}")
        ax.imshow(heat.reshape(grid), extent=extent, cmap="viridis", alpha=0.6, interpolation="nearest")
    else:
        veil = np.ones((rows * columns, 4))
        veil[:, 3] = 0.72
        veil[kept, 3] = 0.0
        ax.imshow(veil.reshape(rows, columns, 4), extent=extent, interpolation="nearest")
    _frames(ax, kept, columns, (wide, tall), boxes)
    ax.set_title(title)
    ax.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    return ax


def _frames(
    ax: Axes, kept: np.ndarray, columns: int, cell: tuple[float, float], boxes: Sequence | None
) -> None:
    """Frame the kept tokens black on white, and the evidence boxes with a dashed line."""
    wide, tall = cell
    for index in kept:
        corner = (index % columns * wide, index // columns * tall)
        ax.add_patch(Rectangle(corner, wide, tall, fill=False, edgecolor="white", linewidth=1.6))
        ax.add_patch(Rectangle(corner, wide, tall, fill=False, edgecolor="black", linewidth=0.7))
    for left, top, right, bottom in () if boxes is None else boxes:
        corner, size = (left, top), (right - left, bottom - top)
        ax.add_patch(
            Rectangle(corner, *size, fill=False, edgecolor=ORANGE, linewidth=2.2, linestyle=(0, (3, 1)))
        )


def verdict_strip(claims: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the register as one strip: a square a claim, coloured and lettered by verdict."""
    _needs(claims, "id", "verdict")
    ax = _axes(ax, (max(6.4, 0.42 * len(claims)), 1.5))
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
