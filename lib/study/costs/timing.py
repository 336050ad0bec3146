"""Timers that can be trusted, and the two ceilings that say what a machine could do at best.

An accelerator works through a queue, so a host clock alone times the launching. Events on the device's own clock are
used where there are any; elsewhere the device is waited for before each reading. Every figure is the median of
repeats after a warm-up, with an interval, and what will be compared is timed in turn: minutes apart, a shared machine is
another machine.
"""

from __future__ import annotations

import math
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

REPEATS, WARM_UP = 20, 3
FEWEST = 6  # repeats of which a median has an interval of 95 %


class Timing(NamedTuple):
    """Seconds of a repeated piece of work.

    Attributes
    ----------
    median, low, high : the median and its interval of at least 95 % (`median_interval`).
    first, third : quartiles of the repeats.
    repeats : how many were timed.
    peak : most bytes allocated on the device above what was there before; NaN where nobody counts them.
    samples : all repeats, in the order of the rounds.
    """

    median: float
    low: float
    high: float
    first: float
    third: float
    repeats: int
    peak: float
    samples: tuple[float, ...]


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Interval of the median from order statistics: no shape is assumed and nothing is drawn.

    Below six values no interval of that level exists; then it is the range.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    count = len(ordered)
    if not count:
        raise ValueError("values must hold at least one number, got none")
    tail, rank = 0.0, 0  # rank: how many of the lowest (and highest) values may be left out
    for below in range(count // 2):
        tail += math.comb(count, below) / 2**count
        if 2 * tail > 1 - level:
            break
        rank = below
    return float(ordered[rank]), float(ordered[count - 1 - rank])


def times_faster(slow: Timing, fast: Timing) -> tuple[float, float, float]:
    """How many times faster, median and interval of the rounds' ratios: each round ran both, one after the other."""
    ratios = np.divide(slow.samples, fast.samples)
    return (float(np.median(ratios)), *median_interval(ratios))


def synchronise(device: torch.device) -> None:
    """Wait for what was launched on a device; the host has nothing to wait for."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize(device)


def laps(work: Callable[[Callable[[], None]], object], device: torch.device) -> list[float]:
    """Run once and return the seconds from the start to each lap that `work` calls, on the device's own clock if any."""
    on_device = device.type == "cuda"
    marks: list = []

    def lap() -> None:
        if on_device:
            marks.append(torch.cuda.Event(enable_timing=True))
            marks[-1].record()
        else:
            synchronise(device)
            marks.append(time.perf_counter())

    synchronise(device)
    lap()
    work(lap)
    synchronise(device)
    if on_device:
        return [marks[0].elapsed_time(mark) / 1000 for mark in marks[1:]]
    return [mark - marks[0] for mark in marks[1:]]


def clock(work: Callable[[], object], device: torch.device) -> float:
    """Run once and return the seconds that it took."""
    return laps(whole(work), device)[0]


def timed_laps(
    works: Sequence[Callable[[Callable[[], None]], object]],
    device: str | torch.device = "cpu",
    repeats: int = REPEATS,
    warm_up: int = WARM_UP,
    limit: float = math.inf,
) -> list[list[Timing]]:
    """Time pieces of work that will be compared, in turn, so that a machine's moods meet all of them alike.

    Parameters
    ----------
    works
        Each called with a function to call at each lap; what it returns is dropped at once.
    repeats, warm_up
        Timed and untimed calls of each.
    limit
        Seconds after which no further round is begun, once there are `FEWEST`: a timing says how many it had.

    Returns
    -------
    list
        A timing a lap for each piece, from its start; peaks are of the whole piece.

    Raises
    ------
    ValueError
        On repeats below 1 or a negative warm-up.
    """
    if repeats < 1 or warm_up < 0:
        raise ValueError(f"repeats must be at least 1 and warm_up at least 0, got {repeats} and {warm_up}")
    device = torch.device(device)
    for work in works:
        for _ in range(warm_up):
            work(lambda: None)
    runs: list[list[list[float]]] = [[] for _ in works]
    peaks = [math.nan] * len(works)
    until = time.monotonic() + limit
    for number in range(repeats):
        if number >= FEWEST and time.monotonic() > until:
            break
        for place, work in enumerate(works):
            if device.type == "cuda":
                synchronise(device)
                before = torch.cuda.memory_allocated(device)
                torch.cuda.reset_peak_memory_stats(device)
            runs[place].append(laps(work, device))
            if device.type == "cuda":
                grown = float(torch.cuda.max_memory_allocated(device) - before)
                peaks[place] = grown if math.isnan(peaks[place]) else max(peaks[place], grown)
    return [
        [summary(seconds, peak) for seconds in zip(*found, strict=True)]
        for found, peak in zip(runs, peaks, strict=True)
    ]


def whole(work: Callable[[], object]) -> Callable[[Callable[[], None]], None]:
    """Work without laps as work with one, its end."""

    def once(lap: Callable[[], None]) -> None:
        work()
        lap()

    return once


def timed(
    work: Callable[[], object],
    device: str | torch.device = "cpu",
    repeats: int = REPEATS,
    warm_up: int = WARM_UP,
) -> Timing:
    """`timed_laps` of one piece of work without laps."""
    return timed_laps([whole(work)], device, repeats, warm_up)[0][0]


def summary(seconds: Sequence[float], peak: float = math.nan) -> Timing:
    """Median, its interval and quartiles of measured seconds."""
    low, high = median_interval(seconds)
    first, third = np.quantile(seconds, (0.25, 0.75))
    return Timing(
        float(np.median(seconds)), low, high, float(first), float(third), len(seconds), peak, tuple(seconds)
    )


class Ceilings(NamedTuple):
    """What a device can do at best: floating-point operations and bytes a second, and how they were measured."""

    flops: float
    bandwidth: float
    how: str


def ceilings(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Ceilings:
    """Measure a device's ceilings: a square matrix product and a copy, random numbers, best of the repeats.

    A copy counts the bytes read and those written. Sizes are large on an accelerator, so that it is full and its cache is
    not what is measured; on a host they take a second.
    """
    device = torch.device(device)
    side, numbers = (8192, 2**29) if device.type == "cuda" else (1024, 2**25)
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(left)
    fastest = min(_seconds(lambda: torch.mm(left, right, out=product), device))
    source = torch.randn(numbers // 2, device=device).view(dtype) if dtype.itemsize == 2 else None
    source = torch.randn(numbers, device=device, dtype=dtype) if source is None else source
    target = torch.empty_like(source)
    copied = min(_seconds(lambda: target.copy_(source), device))
    moved = 2 * source.numel() * source.element_size()
    how = f"{side} x {side} product and a copy of {moved / 2e9:.2f} GB, {str(dtype).removeprefix('torch.')}"
    return Ceilings(2 * side**3 / fastest, moved / copied, how)


def _seconds(work: Callable[[], object], device: torch.device, repeats: int = 10) -> list[float]:
    for _ in range(2):
        work()
    return [clock(work, device) for _ in range(repeats)]


class Bound(NamedTuple):
    """The least time that a piece of work can take, in seconds, and which ceiling says so."""

    seconds: float
    by: str


def roofline(flops: float, moved: float, peaks: Ceilings) -> Bound:
    """The larger of operations over the arithmetic ceiling and bytes over the bandwidth."""
    arithmetic, memory = flops / peaks.flops, moved / peaks.bandwidth
    return Bound(arithmetic, "arithmetic") if arithmetic >= memory else Bound(memory, "memory")


def device_name(device: str | torch.device) -> str:
    """What the device is called: the accelerator's name, or the kind of processor with its threads."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    return f"CPU {platform.machine()}, threads: {torch.get_num_threads()}"


def driver(device: str | torch.device) -> str:
    """CUDA that torch was built with and the driver's version; "none" without an accelerator."""
    if torch.device(device).type != "cuda":
        return "none"
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=20).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        told = []
    return f"CUDA {torch.version.cuda}, driver {told[0] if told else 'unknown'}"
