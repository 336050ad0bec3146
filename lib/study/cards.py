"""Training records of the embedded models: what a card says, and what records call its model."""

from __future__ import annotations

import json
from pathlib import Path

from lib.models.architectures import Sizes
from lib.paths import MODEL, SEEDS

CARD = "training.json"
KEYS = ("sizes", "tower", "decoder")


def read_card(folder: Path) -> dict:
    """Read a model's training record.

    Raises
    ------
    ValueError
        When it is absent or lacks a part.
    """
    path = folder / CARD
    if not path.is_file():
        raise ValueError(f"{folder.name}: no {CARD}; train the model with source live")
    card = json.loads(path.read_text(encoding="utf-8"))
    missing = [key for key in KEYS if key not in card]
    if missing:
        raise ValueError(f"{folder.name}/{CARD} lacks {', '.join(missing)}: an unfinished model")
    return card


def model_name(folder: Path = MODEL) -> str:
    """What records call a model: "scenes", "scenes-N" for one trained from another seed N, "scenes24" at another grid."""
    card = read_card(folder)
    seed, side = card["tower"]["seed"], Sizes(**card["sizes"]).grid
    name = MODEL.name if side == Sizes().grid else f"{MODEL.name}{side}"
    return f"{name}-{seed}" if seed else name


def trained() -> list[str]:
    """Models whose answers are evidence: the shipped one, and every further training whose card lies beside its records."""
    return [MODEL.name, *(model_name(card.parent) for card in sorted(SEEDS.glob(f"*/{CARD}")))]
