"""The part of the embedded model's card that code writes: how it was trained, and the gate of every training."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lib.paths import MODELS, ROOT
from lib.study.training import curve_caption, read_card, recipe_sentence

PATH = MODELS / "scenes" / "README.md"


def block(root: Path = ROOT) -> str:
    """Tell a repository's training record, curves and gates, for the card's markers.

    Raises
    ------
    ValueError
        When the training record or the table of gates is missing.
    """
    path = root / "data" / "tables" / "seed_gates.csv"
    if not path.is_file():
        raise ValueError(f"{path.name} not found; run: make figures")
    card = read_card(root / PATH.relative_to(ROOT).parent)
    curves = "![training losses and validation accuracy](../../../figures/80_curves.png)"
    parts = [recipe_sentence(card), curves, curve_caption(card), "## Gate, on the test split"]
    return "\n\n".join([*parts, gate_lines(pd.read_csv(path))])


def gate_lines(gates: pd.DataFrame) -> str:
    """Return gates as a Markdown table, a row a suite and a column a training (`lib.study.seeds.gates`)."""
    trainings = sorted(set(gates["training"]))
    heads = [f"seed {training}{' (this model)' if not training else ''}" for training in trainings]
    lines = [f"| suite | asked | {' | '.join(heads)} |", "|" + "---|" * (2 + len(heads))]
    for suite, mine in gates.groupby("suite", sort=False):
        cells = []
        for row in mine.set_index("training").loc[trainings].to_dict("records"):
            blind = "" if pd.isna(row["blind"]) else f", blind {row['blind']:.3f}"
            missed = "" if row["gate"] == "met" else f" **{row['gate']}**"
            cells.append(f"{row['accuracy']:.3f} [{row['low']:.3f}, {row['high']:.3f}]{blind}{missed}")
        lines.append(f"| {suite} | {mine['asked'].iloc[0]:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)
