"""Time every selection on the CPU, beside a restatement of AdaptPrune's published loop.

``python -m lib selection-speed`` writes the rows to ``data/tables/selection_speed.csv``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pandas as pd
import torch
from tqdm import tqdm

from lib.paths import TABLES
from lib.pruning import methods, selection
from lib.pruning.merging import average_into_kept
from lib.pruning.peers.tome import bipartite_merge
from lib.study.costs import timing
from lib.study.costs.inputs import Inputs, make_inputs
from lib.study.costs.published_loop import published_loop

COLUMNS = (
    "selection",
    "tokens",
    "keep",
    "width",
    "batch",
    "threads",
    "repeats",
    "median_ms",
    "low_ms",
    "high_ms",
    "cpu_ms",
    "times_faster_than_loop",
    "same_picks",
    "torch",
    "device",
)
LOOP, FAST = "published_loop", "adaptive_nms"
PATH = TABLES / "selection_speed.csv"
ENCODER, DECODER = 1024, 4096  # feature widths of LLaVA-1.5-7B: its vision tower, its language model
SLOW = 1000  # tokens above which the loop runs once: it takes about half a minute there


Run = Callable[[], object]


def _of_method(name: str) -> Callable[[Inputs, int], Run]:
    def build(given: Inputs, keep: int) -> Run:
        method, cues = methods.make(name, keep=keep), given.cues()
        return lambda: method.choose(cues).kept

    return build


def _averaging(given: Inputs, keep: int) -> Run:
    kept = selection.top_k(given.scores, keep)
    return lambda: average_into_kept(given.features, kept)


# Name, widths of the features it is used with (none: it reads no features), what to time.
SELECTIONS: tuple[tuple[str, tuple[int, ...], Callable[[Inputs, int], Run]], ...] = (
    ("uniform", (), _of_method("uniform")),
    ("random", (), _of_method("random")),
    ("top_k", (), lambda given, keep: lambda: selection.top_k(given.scores, keep)),
    ("split_top_k", (), lambda given, keep: lambda: selection.split_top_k(given.scores, given.second, keep)),
    (
        FAST,
        (DECODER,),
        lambda given, keep: (
            lambda: selection.adaptive_nms(given.scores, given.features, given.grid, keep, order="picked")
        ),
    ),
    ("max_min", (ENCODER, DECODER), lambda given, keep: lambda: selection.max_min(given.features, keep)),
    (
        "dpp_map",
        (ENCODER, DECODER),
        lambda given, keep: lambda: selection.dpp_map(given.scores, given.features, keep),
    ),
    ("vispruner", (ENCODER,), _of_method("vispruner")),
    ("holov", (DECODER,), _of_method("holov")),
    ("dart", (DECODER,), _of_method("dart")),
    ("average_into_kept", (ENCODER,), _averaging),
    ("bipartite_merge", (ENCODER,), lambda given, keep: lambda: bipartite_merge(given.features, keep)[0]),
)


def time_one(run: Run, repeats: int, warm: bool = True) -> tuple[dict[str, float], object]:
    """Median and quartiles of wall-clock time and the median of processor time, in milliseconds; and what `run` gave."""
    given, processor = None, []

    def work() -> None:
        nonlocal given
        began = time.process_time()
        given = run()
        processor.append(time.process_time() - began)

    found = timing.timed(work, repeats=repeats, warm_up=int(warm))
    seconds = {
        "median_ms": found.median,
        "low_ms": found.first,
        "high_ms": found.third,
        "cpu_ms": statistics.median(processor[-repeats:]),
    }
    return {name: 1e3 * value for name, value in seconds.items()}, given


def cases(sizes: Sequence[tuple[int, int]], batches: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Every (tokens, keep, batch, width) of a run; width 0 stands for selections that read no features."""
    widths = sorted({width for _, each, _ in SELECTIONS for width in (each or (0,))})
    for tokens, keep in sizes:
        for batch in batches:
            for width in widths:
                yield tokens, keep, batch, width


def _rows_of_case(tokens: int, keep: int, batch: int, width: int, repeats: int) -> Iterator[dict]:
    given = make_inputs(tokens, max(width, 1), batch)
    fixed = {"tokens": tokens, "keep": keep, "width": width or None, "batch": batch}
    loop, picks = None, None
    if batch == 1 and FAST in [name for name, widths, _ in SELECTIONS if width in widths]:
        often = 1 if tokens > SLOW else repeats
        row = given.scores[0], given.features[0], given.grid, keep
        loop, picks = time_one(lambda: published_loop(*row), often, warm=often > 1)
        yield {"selection": LOOP, **fixed, "repeats": often, **loop}
    for name, widths, build in SELECTIONS:
        if width not in (widths or (0,)):
            continue
        times, kept = time_one(build(given, keep), repeats)
        beside = {}
        if name == FAST and loop is not None:
            beside["times_faster_than_loop"] = loop["median_ms"] / times["median_ms"]
            beside["same_picks"] = kept[0].tolist() == picks
        yield {"selection": name, **fixed, "repeats": repeats, **times, **beside}


def _settle_allocator() -> None:
    """Bring the C allocator into the state of a process that has been running a model for a while.

    A fresh one gives large blocks back to the system after every use, and the page faults that follow make the
    published loop about three times slower. Freeing one block just below glibc's upper bound ends that.
    """
    torch.empty(30 * 2**20, dtype=torch.uint8)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure(
    sizes: Sequence[tuple[int, int]],
    batches: Sequence[int],
    repeats: int = 9,
    threads: int = 1,
    settled: bool = True,
) -> pd.DataFrame:
    """Time every selection at every size: one row each, columns `COLUMNS`.

    Parameters
    ----------
    sizes
        (tokens, keep) pairs; tokens must be square numbers.
    batches
        Batch sizes. The published loop takes one sample, so it stands beside batch 1 alone.
    repeats
        Timed runs a row, after one run to warm up. The loop above `SLOW` tokens runs once, without.
    threads
        Threads that torch may use.
    settled
        Whether to start from the allocator's state of a long-running process, see `_settle_allocator`.
    """
    for name, value in (
        ("repeats", repeats),
        ("threads", threads),
        *(("batches", batch) for batch in batches),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    for tokens, keep in sizes:
        make_inputs(tokens, 1, 1)
        selection.budget(keep, tokens)
    rows = []
    if settled:
        _settle_allocator()
    with _threads(threads), torch.no_grad():
        bar = tqdm(list(cases(sizes, batches)), desc="selections", leave=False)
        for tokens, keep, batch, width in bar:
            bar.set_postfix_str(f"{tokens} to {keep}, batch {batch}, width {width}")
            rows += _rows_of_case(tokens, keep, batch, width, repeats)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table = table.assign(threads=threads, torch=torch.__version__, device="cpu")
    table["width"] = table["width"].astype("Int64")
    table["same_picks"] = table["same_picks"].astype("boolean")
    return table.round({column: 3 for column in COLUMNS if column.endswith("_ms")}).round(
        {"times_faster_than_loop": 1}
    )
