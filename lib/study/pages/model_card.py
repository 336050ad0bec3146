"""The part of the embedded model's card that code writes: how it was trained, and the gate of every training."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from lib.models import embedded
from lib.paths import MODELS, ROOT
from lib.study.cards import read_card
from lib.study.pages.n80_training import curve_caption, recipe_sentence
from lib.study.pages.n82_other_seeds import gate_page
from lib.study.scenes import retrieval
from lib.study.scenes.layout import SUITES
from lib.study.scenes.questions import words
from lib.study.wording import markdown

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
    folder = root / PATH.relative_to(ROOT).parent
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    parameters = index["metadata"]["total_parameters"] / 1e6
    card, gates = read_card(folder), gate_page(pd.read_csv(path)).reset_index()
    parts = [
        f"{parameters:.1f} million parameters; a vocabulary of {len(embedded.vocabulary(words()))} tokens for "
        f"{len(SUITES)} kinds of questions. {recipe_sentence(card)}",
        "![training losses and validation accuracy](../../../figures/80_curves.png)",
        curve_caption(card),
        "## Gate, on the test split",
        "Seed 0 is this model; the others are trainings of the same recipe whose weights are not stored. Retrieval: the own one "
        f"among {retrieval.BATCH} captions or pictures.",
        markdown(gates.astype(str)),
    ]
    return "\n\n".join(parts)
