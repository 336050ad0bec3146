"""Record what pruning costs and saves on this machine: one CSV a model and device, one row a timing.

Run ``python -m lib record-cost --out data/records/cost`` on the machine in question. A run that is
cut short, or asked for a part, is taken up where it stopped: rows that the file holds are not measured again.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm
from transformers.utils import logging

from lib.models.architectures import SIZES, Architecture
from lib.pruning.methods import Method, make
from lib.study import cost
from lib.study.cost import TEXT
from lib.study.costs import pieces as benches
from lib.study.costs import timing
from lib.study.costs.pieces import Bench
from lib.study.records import provenance
from lib.study.tables import write_table

SHARES = (1.0, 1 / 3, 2 / 9, 1 / 9, 1 / 18)  # of the visual tokens: 576, 192, 128, 64 and 32 of 576
TIGHT = 1 / 9
BATCHES = {"full": (1, 2, 4, 8, 16, 32), "small": (1, 4), "tiny": (1, 2)}
FEW = {"full": (1, 8, 32), "small": (1, 4), "tiny": (1,)}  # batches of what takes long or varies little
ANSWERS = {"full": (1, 32, 128), "small": (1, 32, 128), "tiny": (1, 8, 32)}  # new tokens of whole answers
ALONE = 1  # the longest answers run at this batch only; on a host eager attention and many tiles as well
INSIDE = ("fastv", "pyramiddrop", "sparsevlm")  # schedules: one cut at layer 2, as AdaptPrune's; staged ones
CHOSEN = (
    "desap", "adaptprune", "fastv", "cls", "visionzip", "divprune", "cdpruner", "pyramiddrop", "sparsevlm",
)  # fmt: skip
ASKED = ("desap", "adaptprune")  # methods whose whole answers are timed
BORN = "born short"  # the ideal: a prompt that never had more visual tokens; nothing is read, nothing chosen
WHOLE = "none"


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one row times: a part, under which method and at which size."""

    part: str
    method: str = WHOLE
    kept: int
    batch: int
    marks: tuple[int, ...] = (0,)  # new tokens at which the clock is read
    backend: str = "sdpa"
    launch: str = "eager"


_SAME = ("part", "method", "kept", "batch", "backend", "launch")  # what tells one point from another
KEYS = ("architecture", "device", "dtype", *_SAME, "new_tokens")
COLUMNS = (
    *KEYS,
    "visual", "text", "lengths", "repeats", "median_ms", "low_ms", "high_ms", "first_ms", "third_ms",
    "ratio", "ratio_low", "ratio_high", "peak_mib", "kv_mib", "macs",
    "driver", "torch", "transformers", "threads", "load", "date", "commit", "note",
)  # fmt: skip


def plan(sizes: Architecture, size: str, accelerated: bool) -> list[Point]:
    """List what is timed of an architecture, the most telling first: a run that ends early has these."""
    whole, tight = sizes.tokens, kept_of(sizes, TIGHT)
    every, few = BATCHES[size], FEW[size]
    tiled = sizes.tiles > 1
    if tiled and not accelerated:
        every = few = (ALONE,)
    budgets = [kept_of(sizes, share) for share in SHARES]
    points = [Point(part=part, kept=whole, batch=b) for part in ("vision tower", "projector") for b in every]
    points += [
        Point(part="prefill", method=WHOLE if kept == whole else BORN, kept=kept, batch=b)
        for b in every
        for kept in budgets
    ]
    points += [
        Point(part="decode step", method=WHOLE if kept == whole else BORN, kept=kept, batch=b)
        for b in every
        for kept in (whole, tight)
    ]
    for b in few:
        points += [Point(part="prefill", method=name, kept=tight, batch=b) for name in INSIDE]
        points += [Point(part="decode step", method=name, kept=tight, batch=b) for name in INSIDE]
        points.append(Point(part="text tower", kept=whole, batch=b))
        for name in CHOSEN:
            method = make(name, keep=tight)
            points += [
                Point(part=part, method=name, kept=tight, batch=b)
                for part in ("vision cues", "decoder cues", "selection")
                if part == "selection" or _has(sizes, method, part)
            ]
    for b in few if accelerated or not tiled else ():
        # The executor knows one tile an image; with more, no method is asked and the parts are added up.
        arms = [(WHOLE, whole), (BORN, tight)] + [(name, tight) for name in ASKED if not tiled]
        marks = ANSWERS[size] if b == ALONE and not tiled else ANSWERS[size][:2]
        points += [Point(part="answer", method=name, kept=kept, batch=b, marks=marks) for name, kept in arms]
    for b in every if accelerated and not tiled else (ALONE,) if accelerated or not tiled else ():
        points += [
            Point(
                part="prefill",
                method=WHOLE if kept == whole else BORN,
                kept=kept,
                batch=b,
                backend="eager",
            )
            for kept in (whole, tight)
        ]
    if accelerated:
        points += [
            Point(
                part=part,
                method=WHOLE if kept == whole else BORN,
                kept=kept,
                batch=b,
                launch=launch,
            )
            for launch in ("graph", "compile")
            for b in few[:2]
            for part in ("decode step", "prefill")
            for kept in (whole, tight)
        ]
    return points


def kept_of(sizes: Architecture, share: float) -> int:
    """Visual tokens at a share of an architecture's."""
    return round(sizes.tokens * share)


def _has(sizes: Architecture, method: Method, part: str) -> bool:
    return cost.cue_macs(sizes, method)[part] > 0


def lengths_of(sizes: Architecture, point: Point) -> list[int]:
    """Sequence length of each decoder layer at a point, text included."""
    if point.method in (WHOLE, BORN):
        return [point.kept + TEXT] * sizes.layers
    return cost.prompt_tokens(sizes, make(point.method, keep=point.kept))


def macs_of(sizes: Architecture, point: Point) -> float:
    """Multiply-adds of a point where a formula has them, for the whole batch; NaN for a selection and an answer."""
    lengths = lengths_of(sizes, point)
    if point.part in ("vision cues", "decoder cues"):
        return point.batch * cost.cue_macs(sizes, make(point.method, keep=point.kept))[point.part]
    known = {
        "vision tower": lambda: cost.tower_macs(sizes),
        "projector": lambda: cost.projector_macs(sizes),
        "text tower": lambda: cost.text_macs(sizes),
        "prefill": lambda: cost.decoder_macs(sizes, lengths),
        "decode step": lambda: cost.decode_macs(sizes, lengths) + cost.head_macs(sizes),
    }
    return point.batch * known[point.part]() if point.part in known else math.nan


def work_of(bench: Bench, point: Point) -> Callable[[Callable[[], None]], object]:
    """A point's work, which calls a lap at each of its marks."""
    lengths = lengths_of(bench.sizes, point)
    method = None if point.method in (WHOLE, BORN) else make(point.method, keep=point.kept)
    if point.part == "answer":
        born = point.kept if point.method == BORN else None
        return bench.answer(point.batch, point.marks, method, born)
    makers: dict[str, Callable[[], benches.Work]] = {
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
    return benches.held(bench.prefill(point.batch, lengths_of(bench.sizes, point))())


def groups(points: Iterable[Point]) -> list[list[Point]]:
    """Points that will be compared and so are timed in turn: one part, batch, kernel and way of launching."""
    found: dict[tuple, list[Point]] = {}
    for point in points:
        found.setdefault((point.part, point.batch, point.backend, point.launch), []).append(point)
    return list(found.values())


def first_is_whole(group: Sequence[Point]) -> bool:
    """Whether the others of a group can be held against its first, the unpruned model."""
    return len(group) > 1 and group[0].method == WHOLE


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
            **{name: getattr(point, name) for name in _SAME},
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
    reason, found, held = _timings(bench, group, repeats, warm_up, limit)
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
        for row, point, timings, cache in zip(told, group, found, held, strict=True)
        for place, (count, lap) in enumerate(zip(point.marks, timings, strict=True))
    ]


def file_of(folder: Path, sizes: Architecture, device: torch.device) -> Path:
    """Where the rows of an architecture on a device lie."""
    return folder / f"{slug(sizes.name)}_{slug(timing.device_name(device))}.csv"


def slug(text: str) -> str:
    """Small letters, digits, dots and single dashes."""
    kept = "".join(letter if letter.isalnum() or letter == "." else "-" for letter in text.lower())
    return "-".join(part for part in kept.split("-") if part)


def read_csv(path: Path) -> pd.DataFrame:
    """Read a file of rows, or none; refuse other columns by the file's name."""
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"note": object})
    if set(frame.columns) != set(COLUMNS):
        odd = sorted(set(frame.columns) ^ set(COLUMNS))
        raise ValueError(f"{path.name}: not a cost record of this version, columns differ: {odd}")
    return frame.assign(note=frame["note"].fillna(""))[list(COLUMNS)]


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
    done = set(frame.loc[same, list(_SAME)].itertuples(index=False, name=None))
    missing = [point for point in points if tuple(getattr(point, name) for name in _SAME) not in done]
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


def part_of(points: Iterable[Point], part: str) -> list[Point]:
    """Every M-th group from the N-th, of a `part` "N/M"."""
    words = part.split("/")
    if (
        len(words) != 2
        or not all(word.isdigit() for word in words)
        or not 1 <= int(words[0]) <= int(words[1])
    ):
        raise ValueError(f"part must be N/M with 1 <= N <= M, got {part!r}")
    first, count = map(int, words)
    return [point for group in groups(points)[first - 1 :: count] for point in group]


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
