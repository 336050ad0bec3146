"""Measure and draw what the claim notebooks, 11 and 21, show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.paths import PUBLISHED
from lib.study.ablations import bars as ablation_labels
from lib.study.compare import SHUFFLED, difference, levels, retention_intervals
from lib.study.evidence import Study
from lib.study.pages.curves import accuracy_figure
from lib.study.pages.forest import ablation_bars
from lib.study.pages.looks import look
from lib.study.scenes.layout import SUITES
from lib.study.stats import mean_interval
from lib.study.tables import ALL, suite_weights

PAPER_TOKENS = 576  # LLaVA-1.5's 24x24 grid, on which the published numbers were measured
_TASK = "desap/share=1.0"
# Arm label in the records: text at the axis, in the order of drawing.
LABELS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "D-7_share": ablation_labels("D-7_share"),
        "D-8_attention": ablation_labels("D-8_attention"),
        "D-9_similarity": ablation_labels("D-9_similarity") | {"random": "random"},
        "A-2_cues": ablation_labels("A-2_cues"),
        "11_controls": {
            "oracle": "oracle",
            "desap": "DeSAP",
            "adaptprune": "AdaptPrune",
            "cls": "[CLS] top-k",
            "fastv": "FastV",
            "uniform": "uniform grid",
            "random": "random",
            "blind": "no visual token",
        },
        "11_shuffled_question": {
            "desap": "DeSAP",
            "desap (shuffled question)": "DeSAP, another question",
            _TASK: "task cue alone",
            f"{_TASK} (shuffled question)": "task cue alone, another question",
            "desap/share=0.0": "saliency only",
            "random": "random",
        },
    }
)


def headline(
    study: Study, keep: int, arms: Sequence[str] = ("none", "oracle", "desap", "adaptprune", "random")
) -> str:
    """Say a figure's message: the accuracies of some arms at one budget."""
    found = levels(study, arms, keep)
    told = [f"{look(row.arm).label} {row.estimate:.2f}" for row in found.itertuples()]
    return f"at {keep} of {study.tokens} tokens: {', '.join(told)}"


def published_retention(tokens: int) -> pd.DataFrame:
    """Read published retention of the methods that were also run here, at the same kept share of tokens.

    Returns
    -------
    DataFrame
        method, keep (of `tokens`), accuracy (a ratio), source.
    """
    first = pd.read_csv(PUBLISHED / "desap_table1.csv")
    second = pd.read_csv(PUBLISHED / "random_and_pooling.csv")
    rows = pd.concat([first[first["method"] == "DeSAP"], second], ignore_index=True)
    names = {"DeSAP": "desap", "FastV": "fastv", "random": "random"}
    rows = rows[rows["method"].isin(names)]
    return pd.DataFrame(
        {
            "method": rows["method"].map(names),
            "keep": rows["tokens"] * tokens / PAPER_TOKENS,
            "accuracy": rows["average_percent"] / 100,
            "source": rows["source"],
        }
    ).reset_index(drop=True)


def retention_curves(study: Study) -> tuple[Figure, pd.DataFrame]:
    """Draw the share of the unpruned accuracy that stays, with the papers' values as hollow markers."""
    arms = ("desap", "adaptprune", "cls", "fastv", "random")
    table = retention_intervals(study)
    table = table[table["method"].isin([*arms, "blind"])].reset_index(drop=True)
    published = published_retention(study.tokens)
    title = "share of the unpruned accuracy kept: ours (lines), published (hollow)"
    figure = accuracy_figure(table, study.tokens, arms, published, "share of unpruned accuracy", title)
    figure.axes[0].axhline(1.0, color="0.15", linewidth=1.1)
    for points in figure.axes[0].collections:
        points.set_zorder(5)  # what others published must not hide behind the lines
    plotted = pd.concat([table.assign(source="this study"), published], ignore_index=True)
    return figure, plotted


def bars_and_differences(
    study: Study, labels: Mapping[str, str], reference: str, keep: int
) -> tuple[Figure, pd.DataFrame]:
    """Draw accuracies of arms beside their paired differences to one of them.

    Parameters
    ----------
    labels
        Arm label in the records to text at the axis, in the order of drawing.
    reference
        The arm that differences are taken to; its own row stays empty on the right.
    """
    frame = levels(study, list(labels), keep)
    pairs = pd.DataFrame([difference(study, arm, reference, keep) for arm in frame["record"]])
    pairs.loc[frame["record"] == reference, ["estimate", "low", "high"]] = np.nan
    frame = frame.assign(label=frame["record"].map(labels))
    beside = frame.assign(
        **{name: pairs[name].to_numpy() for name in ("estimate", "low", "high")}, reference=0.0
    )
    height = 1.0 + 0.42 * len(frame)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, height), layout="constrained", sharey=True)
    ablation_bars(frame, xlabel="accuracy", ax=left)
    ablation_bars(beside, xlabel="paired difference", ax=right)
    left.set(xlabel="accuracy", title=f"accuracy at {keep} of {study.tokens} tokens")
    right.set(xlabel="paired difference", title=f"difference to: {labels[reference]}")
    plotted = pd.concat(
        [
            frame.assign(quantity="accuracy"),
            beside.drop(columns="reference").assign(quantity=f"difference to {reference}"),
        ],
        ignore_index=True,
    )
    return figure, plotted


def bars(study: Study, labels: Mapping[str, str], keep: int, title: str = "") -> tuple[Figure, pd.DataFrame]:
    """Draw accuracies of arms as bars, with the unpruned accuracy as a line."""
    frame = levels(study, list(labels), keep)
    frame = frame.assign(label=frame["record"].map(labels))
    full = levels(study, ["none"], keep)
    if len(full):
        frame = frame.assign(reference=full["estimate"].iloc[0])
    figure, ax = plt.subplots(figsize=(7.4, 1.0 + 0.42 * len(frame)), layout="constrained")
    ablation_bars(frame, xlabel="accuracy (line: unpruned)", ax=ax)
    ax.set_title(title)
    return figure, frame


def shuffled_title(study: Study, keep: int) -> str:
    """Say what another question does to the task cue alone."""
    task = "desap/share=1.0"
    found = levels(study, [task, task + SHUFFLED], keep)["estimate"].tolist()
    told = [f"{name} {value:.2f}" for name, value in zip(("own question", "another"), found, strict=False)]
    return f"task cue alone at {keep} of {study.tokens} tokens: {', '.join(told)}"


def against(study: Study, left: str, right: str, budgets: Sequence[int]) -> pd.DataFrame:
    """Measure the paired difference of two methods by suite and budget, as `dots` draws it."""
    suites = [suite for suite in SUITES if suite in set(study.table["suite"])]
    rows = [
        difference(study, left, right, keep, (suite,))
        | {"label": "all suites" if suite == ALL else suite, "series": f"{keep} tokens"}
        for suite in (ALL, *suites)
        for keep in budgets
    ]
    return pd.DataFrame(rows)


def by_budget(study: Study, pairs: Mapping[str, tuple[str, str]], budgets: Sequence[int]) -> pd.DataFrame:
    """Measure the paired difference of named pairs of arms at each budget, as `dots` draws it."""
    rows = [
        difference(study, left, right, keep) | {"label": f"{keep} tokens", "series": name}
        for keep in budgets
        for name, (left, right) in pairs.items()
    ]
    return pd.DataFrame(rows)


def positions(study: Study, budgets: Sequence[int]) -> pd.DataFrame:
    """Measure what original positions bring over renumbered ones, for the arms that were run both ways."""
    arms = ("oracle", "desap", "cls", "random")
    pairs = {look(arm).label: (f"{arm}/positions=original", arm) for arm in arms}
    return by_budget(study, pairs, budgets)


def measure_means(study: Study, labels: Mapping[str, str]) -> pd.DataFrame:
    """Average measured quantities with intervals: arm (for its look), label, n, estimate, low, high."""
    rows = []
    for name, label in labels.items():
        mine = study.measures[study.measures["measure"] == name]
        if mine.empty:
            continue
        found = mean_interval(
            mine["value"].to_numpy(),
            mine["image_id"].astype("category").cat.codes.to_numpy(),
            study.seed,
            weights=suite_weights(mine["suite"]).to_numpy(),
        )
        method = name.removeprefix("localisation_")
        arm = method if method in ("cls", "fastv", "adaptprune", "random") else "desap"
        rows.append((arm, name, label, found.n, found.estimate, found.low, found.high))
    return pd.DataFrame(rows, columns=["arm", "measure", "label", "n", "estimate", "low", "high"])


def mechanism_bars(study: Study) -> tuple[Figure, pd.DataFrame]:
    """Draw claim D-16: what the last layer's output resembles, and whose tokens lie on the evidence."""
    alike = measure_means(
        study, {"cosine_residual": "residual (its input)", "cosine_attention": "attention part"}
    )
    found = measure_means(
        study,
        {
            "localisation_decoupled": "task cue, decoupled",
            "localisation_vanilla": "task cue, vanilla",
            "localisation_cls": look("cls").label,
            "localisation_fastv": look("fastv").label,
            "localisation_adaptprune": look("adaptprune").label,
            "localisation_random": look("random").label,
        },
    )
    chance = measure_means(study, {"localisation_chance": "chance"})
    if len(chance):
        found = found.assign(reference=chance["estimate"].iloc[0])
    size = (9.4, 1.2 + 0.42 * len(found))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=size, layout="constrained", gridspec_kw={"width_ratios": [1, 1.3]}
    )
    for frame, ax in ((alike, left), (found, right)):
        if len(frame):  # a quantity that was not measured leaves its panel empty
            ablation_bars(frame, ax=ax)
    left.axvline(0, color="0.15", linewidth=1.1)
    left.set_xlabel("cosine with the full hidden state")
    right.set_xlabel("share of kept tokens on the evidence (line: chance)")
    for ax, title in ((left, "what the last layer's output resembles"), (right, "who finds the evidence")):
        ax.set_title(title)
    plotted = pd.concat([alike, found.drop(columns="reference", errors="ignore"), chance], ignore_index=True)
    return figure, plotted
