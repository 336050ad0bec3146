"""What pruning saves in time, out of recorded timings: the numbers of notebook 41.

Nothing is measured in here. Ratios of pieces that were timed in turn are those of the rounds; sums of parts carry the
widest interval that the medians' intervals allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.models.architectures import SIZES, Architecture
from lib.pruning.methods import make
from lib.study import cost
from lib.study.cost import TEXT
from lib.study.costs.points import BORN, COLUMNS, INSIDE, WHOLE, read_csv
from lib.study.costs.timing import Ceilings
from lib.study.pages.n40_operations import label

_ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {sizes.name: sizes for group in SIZES.values() for sizes in group}
)
# Parts of the time to the first token, in the order in which they run.
BEFORE_FIRST = (
    "vision tower", "projector", "text tower", "vision cues", "decoder cues", "selection", "prefill",
)  # fmt: skip


def load(folder: Path) -> pd.DataFrame:
    """Read every cost record below a folder.

    Raises
    ------
    ValueError
        When there is none.
    """
    paths = [path for path in sorted(Path(folder).glob("*.csv")) if path.name != "ceilings.csv"]
    frames = [frame for frame in map(read_csv, paths) if len(frame)]
    if not frames:
        raise ValueError(f"{Path(folder).name}: no cost record; run python -m lib record-cost first")
    return pd.concat(frames, ignore_index=True)[list(COLUMNS)]


def load_ceilings(folder: Path) -> dict[str, Ceilings]:
    """Read the measured ceilings, by device."""
    frame = pd.read_csv(Path(folder) / "ceilings.csv")
    return {row.device: Ceilings(row.flops, row.bandwidth, row.how) for row in frame.itertuples()}


def setups(frame: pd.DataFrame) -> pd.DataFrame:
    """List what was measured where: one row a model and device, accelerators and whole answers first."""
    keys = ["architecture", "device", "dtype"]
    rows = []
    for names, mine in frame.groupby(keys, sort=True):
        failed = int(mine["note"].str.startswith("failed").sum())
        rows.append(
            {
                **dict(zip(keys, names, strict=True)),
                "rows": len(mine),
                "failed": failed,
                "repeats": int(mine.loc[mine["repeats"] > 0, "repeats"].min()),
                "batches": ", ".join(map(str, sorted(set(mine["batch"])))),
                "load of the host": f"{mine['load'].min():.1f} to {mine['load'].max():.1f}",
                "torch": ", ".join(sorted(set(mine["torch"].astype(str)))),
                "driver": ", ".join(sorted(set(mine["driver"].astype(str)))),
                "_order": (names[1].startswith("CPU"), "answer" not in set(mine["part"]), -len(mine)),
            }
        )
    return pd.DataFrame(sorted(rows, key=lambda row: row["_order"])).drop(columns="_order")


def of_setup(frame: pd.DataFrame, place: int = 0) -> pd.DataFrame:
    """Rows of one line of `setups`, failures left out."""
    names = setups(frame).iloc[place][["architecture", "device", "dtype"]]
    same = (frame[list(names.index)] == names).all(axis=1) & (frame["repeats"] > 0)
    return frame[same].reset_index(drop=True)


def sizes_of(rows: pd.DataFrame) -> Architecture:
    """The architecture that rows are of."""
    return _ARCHITECTURES[rows["architecture"].iloc[0]]


class Span(NamedTuple):
    """Milliseconds, or a ratio of them, with an interval."""

    median: float
    low: float
    high: float

    def over(self, other: Span) -> Span:
        """This over another, with the widest interval that both allow."""
        return Span(self.median / other.median, self.low / other.high, self.high / other.low)

    # pyrefly: ignore[bad-override]  # intervals add up, a tuple's length does not grow
    def __add__(self, other: Span) -> Span:
        return Span(*(a + b for a, b in zip(self[:3], other[:3], strict=True)))

    def times(self, count: float) -> Span:
        """So many of these one after the other."""
        return Span(*(count * value for value in self[:3]))


NOTHING = Span(0.0, 0.0, 0.0)


def find(
    rows: pd.DataFrame,
    part: str,
    method: str,
    batch: int,
    columns: Sequence[str] = ("median_ms", "low_ms", "high_ms"),
    **more: object,
) -> Span | None:
    """The timing of a part, or None where there is none; the best unpruned backend and plain launches unless told."""
    wanted = {
        "part": part, "method": method, "batch": batch, "launch": "eager", "backend": "sdpa", "new_tokens": 0,
    } | more  # fmt: skip
    mine = rows
    for name, value in wanted.items():
        mine = mine[mine[name] == value]
    if mine.empty:
        return None
    return Span(*mine.iloc[-1][list(columns)].astype(float))


def faster(rows: pd.DataFrame, part: str, method: str, batch: int, **more: object) -> Span | None:
    """How many times faster than unpruned: round by round where both were timed in turn, else out of the medians."""
    if method == WHOLE:
        return Span(1.0, 1.0, 1.0)
    unpruned = {name: value for name, value in more.items() if name != "kept"}
    full, short = find(rows, part, WHOLE, batch, **unpruned), find(rows, part, method, batch, **more)
    if full is None or short is None:
        return None
    paired = find(rows, part, method, batch, columns=("ratio", "ratio_low", "ratio_high"), **more)
    return full.over(short) if np.isnan(paired.median) else paired


def shape_of(method: str) -> str:
    """Whose rows tell how long the decoder takes under a method: its own, of one with the same cut, or the ideal's."""
    if method in (WHOLE, BORN, *INSIDE):
        return method
    return (
        BORN if make(method, keep=1).stage == "encoder" else "fastv"
    )  # the rest cut at layer 2, as FastV does


def parts(rows: pd.DataFrame, method: str, batch: int) -> dict[str, Span] | None:
    """Every part before the first token under a method, and one decode step; None where one was not measured."""
    sizes = sizes_of(rows)
    kept = sizes.tokens if method == WHOLE else round(sizes.tokens / 9)
    found = {part: find(rows, part, WHOLE, batch) for part in ("vision tower", "projector")}
    if method not in (WHOLE, BORN):
        made = make(method, keep=kept)
        macs = cost.cue_macs(sizes, made)
        if macs["text tower"]:
            found["text tower"] = find(rows, "text tower", WHOLE, batch)
        for part in ("vision cues", "decoder cues"):
            if macs[part]:
                found[part] = find(rows, part, method, batch)
        found["selection"] = find(rows, "selection", method, batch)
    for part in ("prefill", "decode step"):
        found[part] = find(rows, part, shape_of(method), batch, kept=kept)
    known = {part: span for part, span in found.items() if span is not None}
    return known if len(known) == len(found) else None


def answer_of(found: Mapping[str, Span], new_tokens: int) -> Span:
    """Time of an answer out of its parts: all before the first token, then a step for each further one."""
    first = sum((span for part, span in found.items() if part != "decode step"), NOTHING)
    return first + found["decode step"].times(new_tokens - 1)


def batches_of(rows: pd.DataFrame, methods: Sequence[str]) -> list[int]:
    """Batches at which every part of these methods, of the unpruned model and of the ideal was measured."""
    asked = [WHOLE, BORN, *methods]
    return [b for b in sorted(set(rows["batch"])) if all(parts(rows, name, b) for name in asked)]


def part_times(rows: pd.DataFrame, methods: Sequence[str], batch: int) -> pd.DataFrame:
    """Milliseconds of each part before the first token: method, label, part, median, low, high."""
    out = []
    for name in (WHOLE, BORN, *methods):
        found = parts(rows, name, batch)
        if found:
            out += [(name, label(name), part, *found[part]) for part in BEFORE_FIRST if part in found]
    return pd.DataFrame(out, columns=["method", "label", "part", "median", "low", "high"])


def prefill_gain(rows: pd.DataFrame) -> pd.DataFrame:
    """How many times fewer operations and how many times faster a prompt born short is: batch, kept, fewer, median, low, high."""
    sizes, out = sizes_of(rows), []
    for batch in sorted(set(rows["batch"])):
        mine = rows[(rows["part"] == "prefill") & (rows["method"] == BORN) & (rows["batch"] == batch)]
        for kept in sorted(set(mine["kept"]), reverse=True):
            ratio = faster(rows, "prefill", BORN, batch, kept=kept)
            if ratio:
                counts = (sizes.tokens, kept)
                macs = [cost.decoder_macs(sizes, [count + TEXT] * sizes.layers) for count in counts]
                out.append((batch, kept, macs[0] / macs[1], *ratio))
    return pd.DataFrame(out, columns=["batch", "kept", "fewer", "median", "low", "high"])


def break_even(
    rows: pd.DataFrame,
    methods: Sequence[str],
    lengths: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
) -> pd.DataFrame:
    """How many times faster a whole answer is than unpruned, out of its parts.

    Returns
    -------
    DataFrame
        method, label, batch, new_tokens, median, low, high.
    """
    out = []
    for batch in batches_of(rows, methods):
        full = parts(rows, WHOLE, batch)
        for name in (BORN, *methods):
            short = parts(rows, name, batch)
            for count in lengths:
                ratio = answer_of(full, count).over(answer_of(short, count))
                out.append((name, label(name), batch, count, *ratio))
    return pd.DataFrame(out, columns=["method", "label", "batch", "new_tokens", "median", "low", "high"])


def measured_answers(rows: pd.DataFrame) -> pd.DataFrame:
    """Whole answers as measured: times faster than unpruned and than the ideal allows; columns as of `break_even`, and loss.

    `loss` is the share of the ideal's time that a method takes on top.
    """
    out = []
    mine = rows[rows["part"] == "answer"]
    for (batch, count), group in mine.groupby(["batch", "new_tokens"], sort=True):
        ideal = find(mine, "answer", BORN, batch, new_tokens=count)
        for name in dict.fromkeys(group["method"]):
            ratio = faster(mine, "answer", name, batch, new_tokens=count)
            if ratio and ideal and name != WHOLE:
                loss = find(mine, "answer", name, batch, new_tokens=count).over(ideal).median - 1
                out.append((name, label(name), batch, count, *ratio, loss))
    names = ["method", "label", "batch", "new_tokens", "median", "low", "high", "loss"]
    return pd.DataFrame(out, columns=names)
