"""The gate of the embedded model: it answers with all visual tokens, and does not without any."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from lib.study import records
from lib.study.scenes.layout import SUITES
from lib.study.tables import ALL, accuracy_table

# The gate: unpruned accuracy at least this, blind at least this far below. A count and a whole picture need more than one place.
ACCURATE: Mapping[str, float] = MappingProxyType(
    {suite: 0.90 if suite in ("count", "scene") else 0.95 for suite in SUITES}
)
BLIND_GAP = 0.25
PROBED = 0.95  # what the linear probes of the tower were asked to reach before the decoder is trained


def gate_records(folder: Path, seed: int = 0) -> pd.DataFrame:
    """Read the answers with all visual tokens and with none, as an accuracy table."""
    rows = records.read_folder(folder)
    return accuracy_table(rows[rows["arm"].isin(["none", "blind"])], seed)


def gate_table(table: pd.DataFrame) -> pd.DataFrame:
    """Judge the gate on the test split from the arms none and blind.

    Parameters
    ----------
    table
        `lib.study.tables.accuracy_table` with both arms. The mean over suites is held against the mean of what they ask.

    Raises
    ------
    ValueError
        When one of the arms has no record.
    """
    parts = {arm: table[table["method"] == arm].set_index("suite") for arm in ("none", "blind")}
    lacking = [arm for arm, part in parts.items() if part.empty]
    if lacking:
        raise ValueError(f"records have no arm {lacking[0]}, which the gate is judged on")
    rows = []
    for suite in [suite for suite in (*SUITES, ALL) if suite in parts["none"].index]:
        full, blind = parts["none"].loc[suite], parts["blind"].loc[suite]
        gap = full["accuracy"] - blind["accuracy"]
        asked = ACCURATE.get(suite, np.mean(list(ACCURATE.values())))
        met = full["accuracy"] >= asked and gap >= BLIND_GAP
        numbers = [full[name] for name in ("n", "accuracy", "low", "high")]
        rows.append((suite, *numbers, asked, blind["accuracy"], round(gap, 4), "met" if met else "not met"))
    names = ["suite", "n", "accuracy", "low", "high", "asked", "blind", "gap", "gate"]
    return pd.DataFrame(rows, columns=names).round(3)
