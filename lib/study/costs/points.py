"""What is timed of a model, point by point: the plan of a cost record, and the record's columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lib.models.architectures import Architecture
from lib.pruning.methods import Method, make
from lib.study import cost
from lib.study.cost import TEXT

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


SAME = ("part", "method", "kept", "batch", "backend", "launch")  # what tells one point from another
KEYS = ("architecture", "device", "dtype", *SAME, "new_tokens")
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


def groups(points: Iterable[Point]) -> list[list[Point]]:
    """Points that will be compared and so are timed in turn: one part, batch, kernel and way of launching."""
    found: dict[tuple, list[Point]] = {}
    for point in points:
        found.setdefault((point.part, point.batch, point.backend, point.launch), []).append(point)
    return list(found.values())


def first_is_whole(group: Sequence[Point]) -> bool:
    """Whether the others of a group can be held against its first, the unpruned model."""
    return len(group) > 1 and group[0].method == WHOLE


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


def read_csv(path: Path) -> pd.DataFrame:
    """Read a file of rows, or none; refuse other columns by the file's name."""
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"note": object})
    if set(frame.columns) != set(COLUMNS):
        odd = sorted(set(frame.columns) ^ set(COLUMNS))
        raise ValueError(f"{path.name}: not a cost record of this version, columns differ: {odd}")
    return frame.assign(note=frame["note"].fillna(""))[list(COLUMNS)]
