"""Which methods keep the same tokens: the share that two have in common, and families that share half."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.spatial.distance import squareform

from lib.study.evidence import Study
from lib.study.pages.heatmap import heatmap
from lib.study.pages.looks import LOOKS, look
from lib.study.pages.n30_placement import rows
from lib.study.wording import listing


def overlaps(study: Study) -> pd.DataFrame:
    """Average the recorded overlaps: a symmetric table by label, like beside like; 1 on the diagonal.

    Methods that stand at the same places in every picture share one row, named after all of them.
    """
    means = rows(study).groupby("measure", sort=False)["value"].mean()
    means = means[means.index.str.startswith("overlap:")]
    pairs = [name.split(":")[1:] for name in means.index]
    known = dict.fromkeys(name for pair in pairs for name in pair)
    names = [name for name in dict.fromkeys([*LOOKS, *known]) if name in known]
    table = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
    for (left, right), value in zip(pairs, means, strict=True):
        table.loc[left, right] = table.loc[right, left] = value
    same = {name: [other for other in names if table.loc[name, other] == 1] for name in names}
    first = [name for name in names if same[name][0] == name]
    table = table.loc[first, first]
    labels = [", ".join(look(other).label for other in same[name]) for name in first]
    table = table.set_axis(labels).set_axis(labels, axis=1)
    if len(first) < 2:
        return table
    leaves = leaves_list(_tree(table))
    return table.iloc[leaves, leaves]


def families(table: pd.DataFrame, least: float = 0.5) -> list[list[str]]:
    """Groups of two or more rows of `overlaps` that have at least `least` of their tokens in common, in its order.

    In common on average over pairs: groups are joined by average linkage.
    """
    if len(table) < 2:
        return []
    place = fcluster(_tree(table), 1 - least, "distance")
    groups = pd.Series(table.index).groupby(place, sort=False).apply(list)
    return [group for group in groups if len(group) > 1]


def _tree(table: pd.DataFrame) -> np.ndarray:
    return linkage(squareform(1 - table.to_numpy(), checks=False), "average", optimal_ordering=True)


def draw_overlaps(table: pd.DataFrame, keep: int, tokens: int) -> Figure:
    """Draw `overlaps` as a map, the share in common in each cell, a frame around each family."""
    size = len(table)
    figure, ax = plt.subplots(figsize=(3.0 + 0.4 * size, 1.8 + 0.36 * size), layout="constrained")
    marks = table.map(lambda value: f"{value:.2f}".removeprefix("0"))
    heatmap(
        ax, table, marks, "share of the kept tokens in common", colours="Blues", limits=(0, 1), shrink=0.7,
        square=True, mask=np.eye(size, dtype=bool),
    )  # fmt: skip
    ax.set_facecolor("0.85")  # a method with itself
    for family in families(table):
        first = list(table.index).index(family[0])
        ax.add_patch(
            Rectangle(
                (first, first),
                len(family),
                len(family),
                fill=False,
                edgecolor="0.1",
                linewidth=1.8,
                clip_on=False,
            )
        )
    ax.set_xticks(np.arange(size) + 0.5, [_short(label) for label in table.index], rotation=55, ha="right")
    ax.set_yticks(np.arange(size) + 0.5, [_short(label) for label in table.index], rotation=0)
    ax.tick_params(length=0)
    ax.set(title=overlap_title(table, keep, tokens))
    return figure


def _short(label: str) -> str:
    """The first of several methods that stand at the same places, and how many more there are."""
    first, *more = label.split(", ")
    return f"{first} (+{len(more)})" if more else first


def overlap_title(table: pd.DataFrame, keep: int, tokens: int) -> str:
    """Name the families, one a line."""
    found = families(table)
    share = "1 family shares half of its" if len(found) == 1 else f"{len(found)} families share half of their"
    told = f"{share} {keep} tokens or more (framed); chance is {keep / tokens:.0%}"
    return "\n".join([told, *(" + ".join(map(_short, family)) for family in found)])


def overlap_sentence(table: pd.DataFrame, keep: int, tokens: int) -> str:
    """Say which methods stand at the same places, which agree, and how much two methods share on average."""
    pairs = table.where(np.triu(np.ones(table.shape, bool), 1)).stack()
    (left, right), most = pairs.idxmax(), pairs.max()
    same = [listing(label.split(", ")) for label in table.index if ", " in label]
    found = [listing(map(_short, family)) for family in families(table)]
    alone = len(table) - sum(map(len, families(table)))
    return (
        "**Answer.** "
        + (f"{'; '.join(same)} stand at the same places by construction and share one row. " if same else "")
        + (f"At least half in common, on average over pairs, have {'; '.join(found)}; " if found else "")
        + f"{alone} rows belong to no such family. {_short(left)} and {_short(right)} are nearest with {most:.0%}; two methods "
        f"share {pairs.mean():.0%} on average, where two random choices would share {keep / tokens:.0%}."
    )
