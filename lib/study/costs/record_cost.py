"""Record what pruning costs and saves on this machine: one CSV a model and device, one row a timing.

Run ``python -m lib record-cost --out data/records/cost`` on the machine in question. A run that is
cut short, or asked for a part, is taken up where it stopped: rows that the file holds are not measured again.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm
from transformers.utils import logging

from lib.models.architectures import SIZES, Architecture
from lib.pruning.methods import make
from lib.study.costs import timing
from lib.study.costs.launches import Work, held
from lib.study.costs.pieces import Bench
from lib.study.costs.points import (
    BORN,
    COLUMNS,
    SAME,
    WHOLE,
    Point,
    first_is_whole,
    groups,
    lengths_of,
    macs_of,
    part_of,
    plan,
    read_csv,
)
from lib.study.records import provenance
from lib.study.tables import write_table


def work_of(bench: Bench, point: Point) -> Callable[[Callable[[], None]], object]:
    """A point's work, which calls a lap at each of its marks."""
    lengths = lengths_of(bench.sizes, point)
    method = None if point.method in (WHOLE, BORN) else make(point.method, keep=point.kept)
    if point.part == "answer":
        born = point.kept if point.method == BORN else None
        return bench.answer(point.batch, point.marks, method, born)
    makers: dict[str, Callable[[], Work]] = {
        "vision tower": lambda: bench.tower(point.batch),
        "projector": lambda: bench.projector(point.batch),
        "text tower": lambda: bench.words_cue(point.batch),
        "prefill": lambda: bench.prefill(point.batch, lengths, point.launch),
        "decode step": lambda: bench.step(point.batch, lengths, point.launch),
        "vision cues": lambda: bench.vision_cues(method, point.batch),
        "decoder cues": lambda: bench.decoder_cues(method, point.batch),
        "selection": lambda: bench.selection(method, point.batch),
    }
    return timing.whole(makers[point.part]())


def cache_of(bench: Bench, point: Point) -> float:
    """Bytes of the key-value cache that a prefill leaves, read off the cache itself; NaN for other parts."""
    if point.part != "prefill" or point.launch != "eager":
        return math.nan
    return held(bench.prefill(point.batch, lengths_of(bench.sizes, point))())


def _ratio(against: Sequence[timing.Timing] | None, place: int, lap: timing.Timing) -> dict[str, float]:
    """How many times faster than the unpruned model at the same mark, round by round; nothing where it was not there."""
    if against is None or against[place] is lap:
        return {}
    return dict(
        zip(("ratio", "ratio_low", "ratio_high"), timing.times_faster(against[place], lap), strict=True)
    )


NO_ROOM = "failed: OutOfMemoryError"


def _timings(
    bench: Bench, group: Sequence[Point], repeats: int, warm_up: int, limit: float
) -> tuple[str, list[list[timing.Timing]], list[float]]:
    """Time a group: why it failed or "", timings a point and mark, bytes of each point's cache.

    Too little memory, or a capture or compiler that refuses, is worth knowing and no reason to lose the other rows. All
    other errors are raised.
    """
    first = group[0]
    less = min(warm_up, 1) if first.part == "answer" else warm_up
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
    if first.launch == "compile":
        torch._dynamo.reset()
    try:
        with ExitStack() as stack, torch.no_grad():
            if first.backend != "sdpa":
                stack.enter_context(bench.backend(first.backend))
            works = [work_of(bench, point) for point in group]
            found = timing.timed_laps(works, bench.device, repeats, less, limit)
            return "", found, [cache_of(bench, point) for point in group]
    except Exception as error:
        if first.launch == "eager" and not isinstance(error, torch.OutOfMemoryError):
            raise
        return " ".join(f"failed: {type(error).__name__}: {error}".split())[:200], [], []


def rows_of(
    bench: Bench,
    group: Sequence[Point],
    repeats: int,
    warm_up: int = timing.WARM_UP,
    limit: float = math.inf,
) -> list[dict]:
    """Time a group of points and write their rows; where the device or a compiler fails, the rows say why."""
    load, commit = round(os.getloadavg()[0], 2), provenance()["commit"]
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    told = [
        {
            "architecture": bench.sizes.name,
            "device": timing.device_name(bench.device),
            "dtype": str(bench.dtype).removeprefix("torch."),
            **{name: getattr(point, name) for name in SAME},
            "visual": bench.sizes.tokens,
            "text": bench.text,
            "lengths": " ".join(map(str, lengths_of(bench.sizes, point))),
            "macs": macs_of(bench.sizes, point),
            "driver": timing.driver(bench.device),
            "torch": version("torch"),
            "transformers": version("transformers"),
            "threads": torch.get_num_threads(),
            "load": load,
            "date": date,
            "commit": commit,
            "note": "",
        }
        for point in group
    ]
    reason, found, caches = _timings(bench, group, repeats, warm_up, limit)
    if reason.startswith(NO_ROOM) and len(group) > 1:
        return [row for point in group for row in rows_of(bench, [point], repeats, warm_up, limit)]
    if reason:
        return [
            row | {"new_tokens": count, "repeats": 0, "note": reason}
            for row, point in zip(told, group, strict=True)
            for count in point.marks
        ]
    against = found[0] if first_is_whole(group) else None
    return [
        row
        | {
            "new_tokens": count,
            "repeats": lap.repeats,
            "median_ms": 1e3 * lap.median,
            "low_ms": 1e3 * lap.low,
            "high_ms": 1e3 * lap.high,
            "first_ms": 1e3 * lap.first,
            "third_ms": 1e3 * lap.third,
            **_ratio(against, place, lap),
            "peak_mib": lap.peak / 2**20,
            "kv_mib": cache / 2**20,
        }
        for row, point, timings, cache in zip(told, group, found, caches, strict=True)
        for place, (count, lap) in enumerate(zip(point.marks, timings, strict=True))
    ]


def file_of(folder: Path, sizes: Architecture, device: torch.device) -> Path:
    """Where the rows of an architecture on a device lie."""
    return folder / f"{slug(sizes.name)}_{slug(timing.device_name(device))}.csv"


def slug(text: str) -> str:
    """Small letters, digits, dots and single dashes."""
    kept = "".join(letter if letter.isalnum() or letter == "." else "-" for letter in text.lower())
    return "-".join(part for part in kept.split("-") if part)


def record(
    sizes: Architecture,
    points: Sequence[Point],
    folder: Path,
    device: torch.device,
    repeats: int,
    until: float = math.inf,
    again: bool = False,
    limit: float = math.inf,
    warm_up: int = timing.WARM_UP,
) -> int:
    """Measure the points that the folder lacks until the clock `until` (of time.monotonic); how many are left undone.

    `again` measures points anew that failed before; `limit` is that of `lib.study.costs.timing.timed_laps`.
    """
    path, dtype = file_of(folder, sizes, device), number_format(device)
    frame = read_csv(path)
    if again:
        frame = frame[~frame["note"].str.startswith("failed")]
    same = frame["dtype"] == str(dtype).removeprefix("torch.")
    done = set(frame.loc[same, list(SAME)].itertuples(index=False, name=None))
    missing = [point for point in points if tuple(getattr(point, name) for name in SAME) not in done]
    if not missing:
        return 0
    bench, left = Bench.of(sizes, device, dtype), len(missing)
    for group in (bar := tqdm(groups(missing), desc=sizes.name, unit="group")):
        if time.monotonic() > until:
            bar.close()
            return left
        bar.set_postfix_str(f"{group[0].part}, batch {group[0].batch}")
        rows = pd.DataFrame(rows_of(bench, group, repeats, warm_up, limit)).reindex(columns=list(COLUMNS))
        frame = rows if frame.empty else pd.concat([frame, rows], ignore_index=True)
        write_table(frame, path, "%.6g")
        left -= len(group)
    return left


def record_ceilings(folder: Path, device: torch.device) -> None:
    """Measure the device's ceilings, once."""
    path, name = folder / "ceilings.csv", timing.device_name(device)
    frame = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["device"])
    if name in set(frame["device"]):
        return
    dtype = number_format(device)
    found = timing.ceilings(device, dtype)
    row = {"device": name, "dtype": str(dtype).removeprefix("torch."), **found._asdict()}
    row["date"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    rows = pd.DataFrame([row])
    write_table(rows if frame.empty else pd.concat([frame, rows], ignore_index=True), path, "%.6g")


def number_format(device: torch.device) -> torch.dtype:
    """bfloat16 on an accelerator, float32 on a host, whose products of bfloat16 are slow."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def record_all(
    folder: Path,
    device: str = "auto",
    size: str | None = None,
    minutes: float = 5.0,
    part: str = "1/1",
    repeats: int = timing.REPEATS,
    again: bool = False,
    limit: float = 240.0,
    threads: int = 0,
) -> int:
    """Record every architecture of a size; parameters as the command line's. How many points are left undone.

    Raises
    ------
    ValueError
        On a part, size or number of repeats that makes no sense, before anything is built.
    """
    if threads:
        torch.set_num_threads(threads)
    logging.set_verbosity_error()
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    where = torch.device(name)
    size = size or ("full" if where.type == "cuda" else "small")
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    wanted = [(sizes, part_of(plan(sizes, size, where.type == "cuda"), part)) for sizes in SIZES[size]]
    until = time.monotonic() + 60 * minutes
    record_ceilings(folder, where)
    return sum(record(sizes, points, folder, where, repeats, until, again, limit) for sizes, points in wanted)
