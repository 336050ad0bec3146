"""Tables and sentences of notebook 41: what the recorded times say."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lib.paths import PUBLISHED
from lib.study import cost
from lib.study.costs.points import BORN, WHOLE
from lib.study.costs.timing import Ceilings, roofline
from lib.study.pages.n40_operations import label, made, printed
from lib.study.pages.n41_times import break_even, faster, find, prefill_gain, sizes_of
from lib.study.wording import interval, intervals, listing, row_interval

PAYS = 1.1  # an answer is called worth it that comes at least a tenth faster


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
