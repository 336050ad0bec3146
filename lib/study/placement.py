"""Measure where a method's budget goes: on the answer's place, on other things, at the border, on tokens that look alike."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from tqdm import tqdm

from lib.models.hub import load
from lib.pruning.base import Method
from lib.pruning.merging import gather_rows
from lib.pruning.methods import Blind, make
from lib.pruning.precision import cosine
from lib.study import records
from lib.study.arms import RIVALS, TIGHT
from lib.study.capture import Asked, sample, see
from lib.study.evaluate import MODEL, TEST_PICTURES, TEST_SEED, test_set, weights_digest
from lib.study.looks import look
from lib.study.questions import evidence_mask
from lib.study.report import Study
from lib.study.stats import mean_interval

FILE = "placement.parquet"
# Measured quantity: what it says, for an axis.
QUANTITIES: Mapping[str, str] = MappingProxyType(
    {
        "evidence": "on the boxes that answer",
        "distractors": "on other items",
        "border": "on the outermost ring",
        "bottom": "in the lowest quarter",
        "high_norm": "on the tenth of highest norm",
        "redundancy": "cosine to the nearest kept token",
    }
)
CHANCE = "chance"  # what the grid holds of such tokens, in place of a method


def masks(asked: Sequence[Asked], norms: np.ndarray) -> dict[str, np.ndarray]:
    """Mark the tokens that each share counts: [B, N] bool a quantity.

    Parameters
    ----------
    asked
        The questions, one a row.
    norms
        [B, N] lengths of the encoder's features.
    """
    scenes = test_set()[0]
    rows, columns = scenes.layout.grid
    row, column = np.divmod(np.arange(rows * columns), columns)
    ring = (row == 0) | (row == rows - 1) | (column == 0) | (column == columns - 1)
    evidence = np.stack([one.evidence for one in asked])
    items = np.stack([evidence_mask(scenes.box[one.picture], (rows, columns)) for one in asked])
    tenth = round(norms.shape[1] / 10)
    rank = np.argsort(np.argsort(-norms, axis=1, kind="stable"), axis=1, kind="stable")
    return {
        "evidence": evidence,
        "distractors": items & ~evidence,
        "border": np.broadcast_to(ring, evidence.shape),
        "bottom": np.broadcast_to(row >= rows * 3 // 4, evidence.shape),
        "high_norm": rank < tenth,
    }


def shares(
    kept: torch.Tensor, marked: Mapping[str, np.ndarray], features: torch.Tensor
) -> dict[str, np.ndarray]:
    """Measure each row's kept tokens: [B] a quantity of `QUANTITIES`.

    Parameters
    ----------
    kept
        [B, k] int64.
    marked
        [B, N] bool a share, as `masks` gives them.
    features
        [B, N, D], whose cosine tells likeness.
    """
    found = {
        name: np.take_along_axis(mask, kept.numpy(), axis=1).mean(axis=1) for name, mask in marked.items()
    }
    likeness = cosine(gather_rows(features, kept), gather_rows(features, kept))
    likeness.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    return found | {"redundancy": likeness.amax(-1).mean(-1).numpy()}


def overlap(left: torch.Tensor, right: torch.Tensor) -> np.ndarray:
    """Share of the kept tokens [B, k] that two methods have in common: [B]."""
    return (left[:, :, None] == right[:, None]).any(-1).double().mean(-1).numpy()


def measure(loaded, asked: Sequence[Asked], methods: Sequence[Method], batch: int = 60) -> pd.DataFrame:
    """Run every method on the prompts of some questions and measure what it keeps: `measure` rows."""
    lines = []
    for first in tqdm(range(0, len(asked), batch), desc="placement", leave=False):
        some = asked[first : first + batch]
        features = see(loaded, some, Blind()).cues.features.float()
        marked = masks(some, features.norm(dim=-1).numpy())
        kept = {
            method.name: torch.stack(see(loaded, some, method).trace.kept)
            for method in tqdm(methods, desc="methods", leave=False)
        }
        found = {f"placement_{name}:{CHANCE}": mask.mean(axis=1) for name, mask in marked.items()}
        for place, (name, tokens) in enumerate(kept.items()):
            found |= {f"placement_{q}:{name}": v for q, v in shares(tokens, marked, features).items()}
            for other in list(kept)[place + 1 :]:
                found[f"overlap:{name}:{other}"] = overlap(tokens, kept[other])
        for index, one in enumerate(some):
            image = f"test-{TEST_SEED}-{one.picture:04d}"
            lines += [
                (name, one.suite, f"{image}-{one.suite}", image, float(v[index])) for name, v in found.items()
            ]
    columns = ["measure", "suite", "question_id", "image_id", "value"]
    return pd.DataFrame(lines, columns=columns).assign(model="scenes")


def record_placement(
    folder: Path, questions: int = 0, model: Path = MODEL, names: Sequence[str] = RIVALS
) -> Path:
    """Write the measures of all methods and the oracle at the tightest budget, one question a picture.

    Raises
    ------
    ValueError
        When `folder` holds a record made with other weights or pictures.
    """
    path, digest, pictures = folder / "measures" / FILE, weights_digest(model), questions or TEST_PICTURES
    if path.exists():
        told = records.read_provenance(path)
        if (told.get("weights"), told.get("pictures")) != (digest, pictures):
            raise ValueError(f"{FILE}: made with other weights or questions; remove {folder} and run again")
        return path
    started = time.time()
    methods = [make(name, keep=TIGHT) for name in ("oracle", *names)]
    frame = measure(load(model), sample(questions), methods)
    facts = records.provenance(
        config={"keep": TIGHT, "methods": [method.name for method in methods]},
        model="scenes",
        weights=digest,
        pictures=pictures,
        device="cpu",
        dtype="float32",
        n=len(frame),
        seconds=round(time.time() - started, 1),
    )
    return records.write(frame, path, facts, kind="measure")


def rows(study: Study) -> pd.DataFrame:
    """The recorded measures of where budgets go."""
    name = study.measures["measure"]
    return study.measures[name.str.startswith(("placement_", "overlap:"))]


def placement(study: Study) -> pd.DataFrame:
    """Average the recorded placements: arm, label, quantity, n, estimate, low, high; most evidence first."""
    found = []
    for name, mine in rows(study).groupby("measure", sort=False):
        if not name.startswith("placement_"):
            continue
        quantity, _, arm = name.removeprefix("placement_").partition(":")
        number = mean_interval(
            mine["value"].to_numpy(), mine["image_id"].astype("category").cat.codes.to_numpy(), study.seed
        )
        label = CHANCE if arm == CHANCE else look(arm).label
        found.append((arm, label, quantity, number.n, number.estimate, number.low, number.high))
    frame = pd.DataFrame(found, columns=["arm", "label", "quantity", "n", "estimate", "low", "high"])
    order = frame[frame["quantity"] == "evidence"].set_index("arm")["estimate"]
    return frame.sort_values("arm", key=lambda arm: -arm.map(order), kind="stable", ignore_index=True)


def overlaps(study: Study) -> pd.DataFrame:
    """Average the recorded overlaps: a symmetric table by label, like beside like; 1 on the diagonal."""
    means = rows(study).groupby("measure", sort=False)["value"].mean()
    means = means[means.index.str.startswith("overlap:")]
    pairs = [name.split(":")[1:] for name in means.index]
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    table = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
    for (left, right), value in zip(pairs, means, strict=True):
        table.loc[left, right] = table.loc[right, left] = value
    tree = linkage(squareform(1 - table.to_numpy(), checks=False), "average", optimal_ordering=True)
    names = [names[leaf] for leaf in leaves_list(tree)]
    labels = [look(name).label for name in names]
    return table.loc[names, names].set_axis(labels).set_axis(labels, axis=1)


def draw_placement(frame: pd.DataFrame, keep: int) -> Figure:
    """Draw `placement`, a panel a quantity and a row a method; dotted: chance, or random where there is no such number."""
    frame = frame.assign(quantity=pd.Categorical(frame["quantity"], list(QUANTITIES)))
    labels = list(dict.fromkeys(frame.loc[frame["arm"] != CHANCE, "label"]))
    figure, axes = plt.subplots(
        2, 3, figsize=(10.6, 1.6 + 0.5 * len(labels)), sharey=True, layout="constrained"
    )
    for ax, (quantity, words) in zip(axes.flat, QUANTITIES.items(), strict=True):
        mine = frame[frame["quantity"] == quantity].set_index("arm")
        level = mine["estimate"].get(CHANCE, mine["estimate"].get("random"))
        if level is not None:
            ax.axvline(level, color="0.4", linewidth=1.1, linestyle=(0, (1, 2)))
        for arm, row in mine.drop(index=CHANCE, errors="ignore").iterrows():
            style, place = look(arm), labels.index(row["label"])
            ax.plot([row["low"], row["high"]], [place, place], color=style.colour, linewidth=1.6)
            ax.plot(row["estimate"], place, marker=style.marker, color=style.colour, markersize=6)
        ax.set_title(words)
        ax.grid(axis="y", color="0.92", linewidth=0.8)
        sns.despine(ax=ax)
    axes[0, 0].set_yticks(range(len(labels)), labels)
    axes[0, 0].set_ylim(len(labels) - 0.5, -0.5)
    first = frame[(frame["quantity"] == "evidence") & ~frame["arm"].isin([CHANCE, "oracle"])].iloc[0]
    figure.suptitle(
        f"{keep} tokens: {first['label']} puts most on the answer's place, {first['estimate']:.0%} of its tokens"
    )
    figure.supxlabel("share of the kept tokens (last panel: mean cosine); dotted: chance", fontsize="medium")
    return figure


def draw_overlaps(table: pd.DataFrame, keep: int, tokens: int) -> Figure:
    """Draw `overlaps` as a map with the share in common written into each cell."""
    figure, ax = plt.subplots(figsize=(9.6, 8.2), layout="constrained")
    marks = table.map(lambda value: f"{value:.2f}".removeprefix("0") if value < 1 else "")
    sns.heatmap(
        table, annot=marks, fmt="", cmap="viridis", vmin=0, vmax=1, ax=ax, annot_kws={"fontsize": 9},
        cbar_kws={"label": "share of the kept tokens in common"}, square=True,
    )  # fmt: skip
    left, right, most = _closest(table)
    ax.set_title(f"{left} and {right} agree most ({most:.0%}); two random choices share {keep / tokens:.0%}")
    ax.tick_params(axis="x", rotation=60)
    return figure


def _closest(table: pd.DataFrame) -> tuple[str, str, float]:
    """The two methods that agree most without standing at the same places by construction."""
    pairs = table.where(np.triu(np.ones(table.shape, bool), 1)).stack()
    pairs = pairs[pairs < 1]
    (left, right), most = pairs.idxmax(), pairs.max()
    return left, right, float(most)


def placement_sentence(frame: pd.DataFrame, keep: int) -> str:
    """Say who finds the answer's place, who spends on other items, and how alike the kept tokens are."""
    wide = frame.pivot(index="arm", columns="quantity", values="estimate")
    methods = wide.drop(index=[CHANCE, "oracle"], errors="ignore")
    best, spent = methods["evidence"].idxmax(), methods["distractors"].idxmax()
    alike, unlike = methods["redundancy"].idxmax(), methods["redundancy"].idxmin()
    below = methods.index[methods["evidence"] < wide["evidence"][CHANCE]]
    told = ", ".join(look(arm).label for arm in below)
    return (
        f"**Answer.** Of {keep} tokens {look(best).label} puts {methods['evidence'][best]:.1%} on the boxes that answer, where "
        f"chance puts {wide['evidence'][CHANCE]:.1%}; "
        + (f"{told} put fewer there than chance. " if told else "no method puts fewer there than chance. ")
        + f"{look(spent).label} spends most on other items ({methods['distractors'][spent]:.1%}, chance "
        f"{wide['distractors'][CHANCE]:.1%}). Kept tokens resemble each other most with {look(alike).label} (cosine "
        f"{methods['redundancy'][alike]:.2f}) and least with {look(unlike).label} ({methods['redundancy'][unlike]:.2f})."
    )


def overlap_sentence(table: pd.DataFrame, keep: int, tokens: int) -> str:
    """Say which two methods keep the most tokens in common, and how much two methods share on average."""
    left, right, most = _closest(table)
    mean = table.where(np.triu(np.ones(table.shape, bool), 1)).stack().mean()
    same = [label for label in table.index if (table.loc[label] == 1).sum() > 1]
    return (
        (f"{', '.join(same)} stand at the same places by construction. " if same else "")
        + f"{left} and {right} share {most:.0%} of their {keep} tokens; on average two methods share {mean:.0%}, where two random "
        f"choices would share {keep / tokens:.0%}."
    )
