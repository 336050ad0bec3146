"""What pruning saves in time, out of recorded timings: tables and sentences of notebook 41.

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
from lib.paths import PUBLISHED
from lib.pruning.methods import make
from lib.study import cost
from lib.study.cost import TEXT
from lib.study.costs.record_cost import BORN, COLUMNS, INSIDE, WHOLE, read_csv
from lib.study.costs.timing import Ceilings, roofline
from lib.study.pages.n40_operations import label, made, printed
from lib.study.wording import interval, intervals, listing, row_interval

PAYS = 1.1  # an answer is called worth it that comes at least a tenth faster
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
    found: dict[str, Span | None] = {
        part: find(rows, part, WHOLE, batch) for part in ("vision tower", "projector")
    }
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
    return None if any(span is None for span in found.values()) else found


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


def pays_table(rows: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """From where pruning pays: one row a method and batch.

    `first token` is the ratio to unpruned; `sure` whether its whole interval lies above 1; `still` the longest answer
    that comes at least `PAYS` times as fast.
    """
    lengths = tuple(sorted({*range(1, 65), *range(64, 1025, 16)}))
    frame = break_even(rows, methods, lengths)
    out = []
    for (name, batch), mine in frame.groupby(["method", "batch"], sort=False):
        first = mine.iloc[0]
        fast = mine.loc[mine["median"] >= PAYS, "new_tokens"]
        until = "never" if fast.empty else "beyond 1000" if fast.max() > 1000 else str(fast.max())
        told = row_interval(first, ".2f", "median")
        sure = "faster" if first["low"] > 1 else "slower" if first["high"] < 1 else "undecided"
        out.append((label(name), batch, sizes_of(rows).tokens, told, sure, until))
    names = [
        "method",
        "batch",
        "visual tokens",
        "times faster to the first token",
        "sure",
        "a tenth faster up to",
    ]
    return pd.DataFrame(out, columns=names)


def roofline_table(rows: pd.DataFrame, peaks: Ceilings) -> pd.DataFrame:
    """Hold prefill and decode step against the device's ceilings, and say what explains each time.

    Bytes are the least that must move: the weights once, and the cache written (prefill) or read (step).
    """
    sizes = sizes_of(rows)
    width = 2 if rows["dtype"].iloc[0] in ("bfloat16", "float16") else 4
    out = []
    mine = rows[rows["part"].isin(["prefill", "decode step"])]
    for row in mine.itertuples():
        lengths = [int(count) for count in row.lengths.split()]
        moved = cost.weight_bytes(sizes, width) + row.batch * cost.cache_bytes(sizes, lengths, width)
        bound = roofline(2 * row.macs, moved, peaks)
        share = 1000 * bound.seconds / row.median_ms
        why = bound.by if share >= 0.5 else "overhead"
        what = (row.part, label(row.method), row.kept, row.batch, row.backend, row.launch)
        rates = (2 * row.macs / moved, 2 * row.macs / row.median_ms / 1e9)
        out.append((*what, *rates, row.median_ms, 1000 * bound.seconds, share, why))
    names = ["part", "method", "kept", "batch", "backend", "launch", "FLOP a byte", "TFLOP/s"]
    names += ["ms", "bound, ms", "share of ceiling"]
    return pd.DataFrame(out, columns=[*names, "explained by"])


def backends(rows: pd.DataFrame) -> pd.DataFrame:
    """The wrong denominator: a pruned prefill against the unpruned one with a fused kernel and with eager attention."""
    out = []
    tight = round(sizes_of(rows).tokens / 9)
    for batch in sorted(set(rows["batch"])):
        fused, eager = (find(rows, "prefill", WHOLE, batch, backend=name) for name in ("sdpa", "eager"))
        short, slow = (
            find(rows, "prefill", BORN, batch, kept=tight, backend=name) for name in ("sdpa", "eager")
        )
        if fused and eager and short and slow:
            ratios = (fused.over(short), eager.over(slow), eager.over(short))
            out.append((batch, *(interval(*ratio, ".2f") for ratio in ratios)))
    names = ["batch", "both fused", "both eager", "unpruned eager, pruned fused"]
    return pd.DataFrame(out, columns=names)


def launches(rows: pd.DataFrame) -> pd.DataFrame:
    """Plain launches beside compiled and captured ones: ms and times faster than plain, where they were measured."""
    out = []
    for row in rows[rows["launch"] != "eager"].itertuples():
        plain = find(rows, row.part, row.method, row.batch, kept=row.kept)
        if plain:
            told = (row.part, label(row.method), row.kept, row.batch, row.launch, plain.median, row.median_ms)
            out.append((*told, plain.median / row.median_ms))
    names = ["part", "method", "kept", "batch", "launch", "plain, ms", "ms", "times faster"]
    return pd.DataFrame(out, columns=names).round(2)


def setup_sentence(rows: pd.DataFrame) -> str:
    """Say in one sentence what the figures are of, and that a scaled model stands for no other."""
    row = rows.iloc[0]
    small = "scaled" in row["architecture"]
    caution = (
        " This is a scaled-down architecture on a processor: its times show the mechanism at that size, and nothing of the "
        "7B model on an accelerator."
        if small
        else ""
    )
    return f"Figures and tables below: **{row['architecture']}** on {row['device']}, {row['dtype']}.{caution}"


def answer_sentence(rows: pd.DataFrame, methods: Sequence[str]) -> str:
    """Say what fewer operations became in time."""
    gain = prefill_gain(rows)
    tight = gain[gain["kept"] == round(sizes_of(rows).tokens / 9)]
    first, last = tight.iloc[0], tight.iloc[-1]
    frame = break_even(rows, methods, (1, 128))
    one = frame[(frame["batch"] == frame["batch"].min()) & (frame["method"] != BORN)]
    told = [
        f"{name} {mine['median'].iloc[0]:.2f} times to the first token and {mine['median'].iloc[1]:.2f} times over 128"
        for name, mine in one.groupby("label", sort=False)
    ]
    return (
        f"**Answer.** With a ninth of the tokens the prefill does {first['fewer']:.1f} times fewer operations and is "
        f"{row_interval(first, '.1f', 'median')} times faster at batch {first['batch']:.0f}, "
        f"{row_interval(last, '.1f', 'median')} at batch {last['batch']:.0f}. With tower, cues and choice "
        f"counted, at batch {one['batch'].iloc[0]} and out of the parts: {listing(told)}."
    )


def context(rows: pd.DataFrame) -> pd.DataFrame:
    """What the papers print about time and memory, beside the same comparison here: context and no verdict."""
    table = pd.read_csv(PUBLISHED / "desap_table6.csv").set_index("method")
    seconds = {
        name: 60 * int(minutes) + int(rest)
        for name, (minutes, rest) in table["total_minutes_seconds"].str.split(":").items()
    }
    prefill = table.loc["full", "prefill_ms_printed"] / table.loc["DeSAP", "prefill_ms_printed"]
    total = seconds["full"] / seconds["DeSAP"]
    (faster_printed,) = printed("A-5", "times faster").values()
    (memory_printed,) = printed("A-5", "memory saved").values()
    sizes, kept = sizes_of(rows), round(sizes_of(rows).tokens / 9)
    held = [
        sum(cost.prompt_tokens(sizes, made(name, kept))) for name in (WHOLE, "adaptprune")
    ]  # bytes are proportional to it
    less = f"{1 - held[1] / held[0]:.0%}"
    out = []
    for batch in sorted(set(rows.loc[rows["part"] == "answer", "batch"])):
        first = {"new_tokens": 1, "kept": kept}
        asked = (
            ("D-12", f"{prefill:.1f}×", "prefill alone, the ideal", "prefill", BORN, {"kept": kept}),
            ("D-12", f"{prefill:.1f}×", "DeSAP to the first token", "answer", "desap", first),
            ("D-13", f"{total:.1f}×", "DeSAP, 32 tokens", "answer", "desap", first | {"new_tokens": 32}),
            ("A-5", f"{faster_printed}×", "AdaptPrune to the first token", "answer", "adaptprune", first),
        )
        for claim, value, what, part, method, more in asked:
            ratio = faster(rows, part, method, batch, **more)
            if ratio:
                told = f"{ratio.median:.2f}× [{ratio.low:.2f}, {ratio.high:.2f}]"
                out.append((claim, value, what, str(batch), told))
    memory = f"{memory_printed:.0%} less memory"
    out.append(("A-5", memory, "AdaptPrune's key-value cache after the prefill", "any", f"{less} less"))
    return pd.DataFrame(out, columns=["claim", "printed", "here", "batch", "found"])


def spans(frame: pd.DataFrame, decimals: int = 2) -> pd.DataFrame:
    """Write median, low and high as one column of text, "times faster"."""
    told = intervals(frame, f".{decimals}f", "median")
    return frame.drop(columns=["median", "low", "high"]).assign(**{"times faster": told})
