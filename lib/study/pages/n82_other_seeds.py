"""Draw and tell what holds across trainings of the embedded model."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lib.models.architectures import Sizes
from lib.study.arms import MANY_SEEDS, RANDOM_SEEDS, TIGHT
from lib.study.claims import NOT_RUN, VERDICTS
from lib.study.factorial import CUES
from lib.study.pages import n80_training
from lib.study.pages.forest import Series, forest, spread
from lib.study.pages.looks import BLUE, FONT, GREEN, ORANGE, PURPLE, SKY, VERDICT_COLOURS, VERDICT_LETTERS
from lib.study.scenes import gate, retrieval
from lib.study.scenes.layout import SUITES
from lib.study.scenes.training.train_decoder import VALIDATED
from lib.study.wording import intervals, listing, row_interval, wide

_LOOKS = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "v"), (SKY, "P"))  # a training each, in order
_ALL_OF = {1: "the one training", 2: "both trainings"}


def trainings(table: pd.DataFrame) -> list[str]:
    """Columns "seed N" of a table of verdicts."""
    return [name for name in table.columns if name.startswith("seed ")]


def answer(table: pd.DataFrame) -> str:
    """Say how many verdicts are the same in every training, and which are not."""
    same = table["all"] == "yes"
    count = len(trainings(table))
    every = _ALL_OF.get(count, f"all {count} trainings")
    told = (
        f"Of {len(table)} claims that a trained model judges, {same.sum()} have the same verdict in {every}"
    )
    if (~same).any():
        told += f"; {listing(table.loc[~same, 'id'])} {'does' if (~same).sum() == 1 else 'do'} not"
    return f"**Answer.** {told}."


def verdict_matrix(table: pd.DataFrame) -> Figure:
    """Draw a square a claim and training, coloured and lettered by verdict; bold: verdicts differ."""
    names = ["committed", *trainings(table)]
    figure, ax = plt.subplots(figsize=(9.2, 0.7 + 0.3 * len(table)), layout="constrained")
    for row, claim in enumerate(table.to_dict("records")):
        for column, name in enumerate(names):
            verdict = claim[name]
            colour = VERDICT_COLOURS.get(verdict, "white")
            ax.add_patch(Rectangle((column + 0.06, row + 0.08), 0.88, 0.84, color=colour))
            letter = VERDICT_LETTERS[verdict]
            ax.text(column + 0.5, row + 0.5, letter, ha="center", va="center", fontsize=FONT, color="0.1")
        weight = "normal" if claim["all"] == "yes" else "bold"
        ax.text(
            len(names) + 0.15,
            row + 0.5,
            f"{claim['id']}: {claim['claim']}",
            va="center",
            fontsize=FONT - 1,
            weight=weight,
        )
    ax.set(xlim=(-0.2, len(names) + 6.6), ylim=(len(table), -0.1), yticks=[])
    ax.set_xticks(np.arange(len(names)) + 0.5, ["register", *names[1:]])
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    sns.despine(ax=ax, left=True, bottom=True)
    told = ", ".join(f"{VERDICT_LETTERS[verdict]} {verdict}" for verdict in VERDICTS)
    ax.set_xlabel(told, fontsize=FONT - 1)
    return figure


def verdict_caption(table: pd.DataFrame) -> str:
    """Describe the matrix of verdicts."""
    return (
        f"*A row for each of the {len(table)} claims that a trained model judges; first the register's verdict, then that of each training "
        f"on its own answers. Random tokens are drawn {len(RANDOM_SEEDS)} times at {TIGHT} tokens and once elsewhere (up to {MANY_SEEDS} "
        "times for the register). Colour and letter both name the verdict; bold: not the same in all. In the table, the estimate of each "
        "claim's weakest clause stands in brackets.*"
    )


def effect_caption(table: pd.DataFrame) -> str:
    """Describe the figure of effects."""
    asked = int(table["n"].max())
    return (
        f"*Paired differences over {asked:,} questions, with 95 % intervals, bootstrap over pictures; the upright bar is the mean over the "
        "trainings. An effect without a remark lies on the same side of zero in every training, with its whole interval. The last "
        f"{len(CUES)} rows are shares of cues: what adding the cue brings on average.*"
    )


def effect_dots(table: pd.DataFrame) -> Figure:
    """Draw each effect in each training, with intervals over pictures; a bar is the mean over the trainings."""
    names = list(dict.fromkeys(table["effect"]))
    seeds = [name for name in dict.fromkeys(table["training"]) if name != "mean"]
    figure, ax = plt.subplots(figsize=(8.4, 0.8 + 0.42 * len(names)), layout="constrained")
    ax.axvline(0, color="0.3", linewidth=1.0)
    places = np.arange(len(names), dtype=float)
    shifts = spread(len(seeds), 0.48 / max(len(seeds) - 1, 1))
    dress = {
        name: Series(*style, shift, f"seed {name}")
        for name, style, shift in zip(seeds, _LOOKS, shifts, strict=False)
    }
    forest(ax, table, names, dress, at="effect", by="training", size=5)
    mean = table[table["training"] == "mean"].set_index("effect").loc[names]
    ax.plot(
        mean["estimate"],
        places,
        "|",
        color="0.1",
        markersize=20,
        markeredgewidth=1.4,
        label="mean of trainings",
    )
    told = {"yes": "", "no effect": "  (no effect)", "differs": "  (differs)"}
    ax.set_yticks(places, [f"{name}{told[mean.loc[name, 'holds']]}" for name in names])
    ax.set(
        ylim=(len(names) - 0.4, -0.6),
        xlabel=f"difference in accuracy at {TIGHT} of {Sizes().grid ** 2} tokens (95 % interval over pictures)",
    )
    ax.legend(loc="lower right", frameon=False)
    sns.despine(ax=ax)
    return figure


def learning(cards: Mapping[int, Mapping]) -> tuple[Figure, pd.DataFrame]:
    """Draw the decoder's validation accuracy a suite, one line a training; return the plotted numbers, too."""
    parts = [n80_training.curve_frame(card).assign(training=seed) for seed, card in cards.items()]
    frame = pd.concat(parts, ignore_index=True)
    frame = frame[frame["quantity"].str.startswith(n80_training.VALIDATION)].reset_index(drop=True)
    figure, axes = plt.subplots(2, 3, figsize=(9.6, 5.0), sharex=True, sharey=True, layout="constrained")
    for ax, suite in zip(axes.flat, SUITES, strict=True):
        for seed, (colour, marker) in zip(cards, _LOOKS, strict=False):
            mine = frame[
                (frame["quantity"] == f"{n80_training.VALIDATION}{suite}") & (frame["training"] == seed)
            ]
            ax.plot(
                mine["step"], mine["value"], color=colour, marker=marker, markersize=5, label=f"seed {seed}"
            )
        ax.axhline(gate.ACCURATE[suite], color="0.15", linewidth=1.1, linestyle=(0, (4, 2)))
        ax.set(title=suite, ylim=(0, 1.03))
        sns.despine(ax=ax)
    for ax in axes[-1]:
        ax.set_xlabel("step of the decoder")
    for ax in axes[:, 0]:
        ax.set_ylabel("validation accuracy")
    axes[0, 0].legend(frameon=False)
    return figure, frame


def learning_caption() -> str:
    """Describe the figure of the curves."""
    return (
        f"*The decoder's accuracy on {VALIDATED} validation pictures while it learns, one line a training; dashed: what the gate asks for "
        f"on the test split. No interval: a point is one measurement of {VALIDATED} questions.*"
    )


def gate_rule() -> str:
    """Say what the gate asks for."""
    asked = listing(f"{least:.2f} on {suite}" for suite, least in gate.ACCURATE.items())
    return (
        f"The gate asks for {asked}, for blind answers {gate.BLIND_GAP:.2f} below, and that the CLIP alone finds "
        f"{retrieval.ASKED:.2f} of the captions and of the pictures among {retrieval.BATCH}, so that text similarity is a fair cue."
    )


def gate_page(table: pd.DataFrame) -> pd.DataFrame:
    """The gate's table for readers: a row a suite, a column a training, met or not with the numbers."""
    cells = [
        row_interval(row, ".3f", "accuracy")
        + ("" if pd.isna(row["blind"]) else f", blind {row['blind']:.3f}")
        + f": {row['gate']}"
        for row in table.to_dict("records")
    ]
    page = wide(table, cells, ["suite", "asked"], "training").rename(columns=lambda seed: f"seed {seed}")
    return page.reset_index("asked").rename_axis(columns=None)


def gate_answer(table: pd.DataFrame) -> str:
    """Say in which trainings which part of the gate is missed."""
    parts = []
    for seed, mine in table.groupby("training"):
        missed = mine.loc[mine["gate"] != "met", "suite"].tolist()
        parts.append(f"seed {seed} {'meets all of it' if not missed else 'misses ' + listing(missed)}")
    return f"Of the gate, {listing(parts)}."


def probe_page(cards: Mapping[int, Mapping]) -> pd.DataFrame:
    """Linear probes of the tower: a row an attribute, a column a training."""
    columns = {
        f"seed {seed}": n80_training.probe_table(card).set_index("attribute")["linear probe"]
        for seed, card in cards.items()
    }
    return pd.DataFrame(columns)


def verdict_page(table: pd.DataFrame) -> pd.DataFrame:
    """Verdicts for readers: committed and by training, each with its weakest clause's estimate."""
    shown = table[["id", "committed"]].copy()
    for name in trainings(table):
        estimate = table[name.replace("seed", "estimate")]
        verdict = table[name].replace("", NOT_RUN)
        shown[name] = [f"{said} ({number})" for said, number in zip(verdict, estimate, strict=True)]
    return shown.assign(**{"same in all": table["all"]}).set_index("id")


def property_page(table: pd.DataFrame) -> pd.DataFrame:
    """Properties of real models: a row a property, a column a training."""
    cells = [f"{told}: {found}" for told, found in zip(intervals(table, ".2f"), table["found"], strict=True)]
    page = wide(table, cells, "property", "training")
    return page.rename(columns=lambda seed: f"seed {seed}").rename_axis(columns=None)


def effect_page(table: pd.DataFrame) -> pd.DataFrame:
    """Effects for readers: estimate and interval a training, the mean, and whether the effect holds in all."""
    page = wide(table, intervals(table), "effect", "training")
    named = {name: name if name == "mean" else f"seed {name}" for name in page.columns}
    holds = table.drop_duplicates("effect").set_index("effect")["holds"]
    return page.rename(columns=named).rename_axis(columns=None).assign(**{"in all": holds})
