"""Time every selection on the CPU, beside a restatement of AdaptPrune's published loop.

``python -m lib selection-speed`` writes the rows to ``data/tables/selection_speed.csv``.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize
from tqdm import tqdm

from lib.paths import TABLES
from lib.pruning import methods, selection
from lib.pruning.merging import average_into_kept
from lib.pruning.peers.tome import bipartite_merge
from lib.study.cost import TEXT

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


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the selections read: [B, N] scores, [B, N, D] features, (rows, columns)."""

    grid: tuple[int, int]
    scores: Tensor
    second: Tensor
    features: Tensor

    def cues(self) -> methods.Cues:
        """The same as cues, for selections that are written inside a method."""
        return methods.Cues(
            grid=self.grid,
            features=self.features,
            saliency=self.scores[:, None],
            keys=self.features,
            projected=self.features,
            seeds=list(range(len(self.scores))),
            attended_keys=self.features,
            final_states=self.features,
            prompt_keys=self.features[:, :TEXT],
            prompt_states=self.features[:, :TEXT],
            prompt_valid=torch.ones(len(self.scores), min(TEXT, self.features.shape[1]), dtype=torch.bool),
        )


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


def published_loop(
    scores: Tensor,
    keys: Tensor,
    grid: tuple[int, int],
    keep: int,
    radius: float = 5.0,
    sigma_distance: float = 1.5,
    sigma_similarity: float = 0.05,
) -> list[int]:
    """AdaptPrune's choice as it was published: one argmax and one read of the device a token.

    Written from the description of the released code, as a measure of cost: keys are scaled once, every pick is
    compared with all positions, a boolean mask says which of them fade, and a chosen token can come again.

    Parameters
    ----------
    scores
        [N].
    keys
        [N, D].
    grid, keep, radius, sigma_distance, sigma_similarity
        As in :func:`lib.pruning.selection.adaptive_nms`; `keep` is a count.

    Returns
    -------
    list of int
        Picks in their order. `lib.study.parity.oracles.adaptive_nms` is the plainer and slower transcription.
    """
    rows, columns = grid
    down, across = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    keys = normalize(keys, dim=-1)
    live = scores.clone().view(rows, columns)
    picks: list[int] = []
    while True:
        pick = torch.argmax(live).item()
        picks.append(pick)
        if len(picks) == keep:
            break
        distance = ((down - pick // columns).float() ** 2 + (across - pick % columns).float() ** 2).sqrt()
        likeness = cosine_similarity(keys, keys[pick][None], dim=-1).view(rows, columns)
        near = torch.exp(-(distance**2) / (2 * sigma_distance**2))
        alike = torch.exp(-((1 - likeness) ** 2) / (2 * sigma_similarity**2))
        window = distance <= radius
        live[window] *= 1 - (near * alike)[window]
    return picks


def make_inputs(tokens: int, width: int, batch: int, seed: int = 0) -> Inputs:
    """Random scores without ties, and features that fall into twelve kinds, as patches of one image do."""
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise ValueError(f"tokens must be a square number, for a square grid; got {tokens}")
    draw = torch.Generator().manual_seed(seed)
    kinds = torch.randn(batch, 12, width, generator=draw)
    kind = torch.randint(12, (batch, tokens), generator=draw)
    features = kinds.gather(1, kind[..., None].expand(-1, -1, width))
    features = features + 0.3 * torch.randn(batch, tokens, width, generator=draw)
    scores, second = torch.rand(2, batch, tokens, generator=draw)
    return Inputs((side, side), scores, second, features)


def time_one(run: Run, repeats: int, warm: bool = True) -> tuple[dict[str, float], object]:
    """Median and quartiles of wall-clock time and the median of processor time, in milliseconds; and what `run` gave."""
    if warm:
        run()
    wall, processor = [], []
    for _ in range(repeats):
        began, began_cpu = time.perf_counter(), time.process_time()
        result = run()
        wall.append(1e3 * (time.perf_counter() - began))
        processor.append(1e3 * (time.process_time() - began_cpu))
    low, high = np.percentile(wall, [25, 75])
    times = {
        "median_ms": statistics.median(wall),
        "low_ms": float(low),
        "high_ms": float(high),
        "cpu_ms": statistics.median(processor),
    }
    return times, result


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
        times = 1 if tokens > SLOW else repeats
        row = given.scores[0], given.features[0], given.grid, keep
        loop, picks = time_one(lambda: published_loop(*row), times, warm=times > 1)
        yield {"selection": LOOP, **fixed, "repeats": times, **loop}
    for name, widths, build in SELECTIONS:
        if width not in (widths or (0,)):
            continue
        timing, kept = time_one(build(given, keep), repeats)
        beside = {}
        if name == FAST and loop is not None:
            beside["times_faster_than_loop"] = loop["median_ms"] / timing["median_ms"]
            beside["same_picks"] = kept[0].tolist() == picks
        yield {"selection": name, **fixed, "repeats": repeats, **timing, **beside}


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
