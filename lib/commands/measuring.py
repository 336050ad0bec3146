"""Commands that time and compare selections; what a command needs is imported when it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lib.commands.options import option, path, switch
from lib.paths import TABLES

if TYPE_CHECKING:
    import pandas as pd

Rows = Annotated[Path, path("where the rows go", "FILE.csv")]


def _table(context: typer.Context, usual: Path, make: Callable[[], pd.DataFrame]) -> None:
    """Write a command's table; the committed one by the usual arguments alone, with other ones ``--out`` is asked for.

    Raises
    ------
    ValueError
        On a place that is not for these arguments, and as `make` does.
    """
    from lib.study.tables import write_table

    out = context.params["out"]
    defaults = {one.name: one.default for one in context.command.params if one.name != "out"}
    changed = [name for name, default in defaults.items() if context.params[name] != default]
    if out.resolve() == usual.resolve() and changed:
        raise ValueError(
            f"--out must name another file, as --{changed[0]} is given: {usual.name} is made with "
            f"{defaults[changed[0]]!r} alone"
        )
    if out.suffix != ".csv":
        raise ValueError(f"out must be a .csv file, got {out}")
    print(f"done: {write_table(make(), out)}")


def _ints(name: str, text: str, count: int, form: str) -> list[tuple[int, ...]]:
    """Numbers of a comma list, `count` behind each other with colons."""
    found = []
    for word in text.split(","):
        try:
            found.append(tuple(int(part) for part in word.split(":")))
        except ValueError:
            found.append(())
        if len(found[-1]) != count:
            raise ValueError(f"--{name}: {form}, got {word!r}")
    return found


def parity(
    context: typer.Context,
    seeds: Annotated[int, option("draws a kind and size")] = 6,
    out: Rows = TABLES / "parity.csv",
) -> None:
    """Hold methods against restatements of released rules."""
    from lib.study.parity import table

    _table(context, table.PATH, lambda: table.table(seeds))


def half_precision(
    context: typer.Context,
    tokens: Annotated[int, option("a square number")] = 576,
    keep: Annotated[int, option("tokens kept")] = 64,
    draws: Annotated[int, option("random samples")] = 10,
    out: Rows = TABLES / "precision_overlap.csv",
) -> None:
    """Compare choices on half-precision cues with float32."""
    from lib.study.costs.half_precision import PATH, overlap_table

    _table(context, PATH, lambda: overlap_table(tokens, keep, draws))


def selection_speed(
    context: typer.Context,
    repeats: Annotated[int, option("timed runs a row")] = 9,
    sizes: Annotated[str, option("comma list", "TOKENS:KEEP,...")] = "576:57,576:64,576:128,2304:320",
    batches: Annotated[str, option("comma list", "N,...")] = "1,8",
    threads: Annotated[int, option("threads that torch may use")] = 1,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="as in a fresh process, in which the published loop is three times slower"
        ),
    ] = False,
    out: Rows = TABLES / "selection_speed.csv",
) -> None:
    """Time every selection, and a published loop, on the CPU."""
    from lib.study.costs.selection_speed import PATH, measure

    pairs = _ints("sizes", sizes, 2, "a size is TOKENS:KEEP, two ints")
    at_once = [one for (one,) in _ints("batches", batches, 1, "a batch is an int")]
    _table(context, PATH, lambda: measure(pairs, at_once, repeats, threads, not fresh))


def record_cost(
    out: Annotated[Path, path("of the CSV files")],
    device: Annotated[str, option("auto, cpu, cuda or cuda:0")] = "auto",
    size: Annotated[
        str | None, option("full or small  [default: full on an accelerator, small on a host]")
    ] = None,
    minutes: Annotated[float, option("start no group of points after so long")] = 5.0,
    limit: Annotated[float, option("seconds a group is repeated, once it has 6 repeats")] = 240.0,
    part: Annotated[str, option("every M-th group from the N-th", "N/M")] = "1/1",
    repeats: Annotated[int, option("timed runs a point")] = 20,
    threads: Annotated[int, option("threads of a host; 0: as torch finds")] = 0,
    again: Annotated[bool, switch("--again", "measure points anew that failed before")] = False,
) -> int:
    """Time a LLaVA of random weights, pruned and whole.

    Rows already there are skipped: repeat the command while its status is 3.
    """
    given = dict(locals())
    from lib.study.costs.record_cost import record_all

    left = record_all(given.pop("out"), **given)
    print(f"{left} points are left: run the same command again" if left else "all points are recorded")
    return 3 if left else 0


def kernel_bench(
    out: Annotated[Path, path("what to write", "FILE.csv")],
    repeats: Annotated[int, option("timed calls each, at least 2")] = 50,
    no_prefill: Annotated[bool, switch("--no-prefill", "leave out the 7B decoder (14 GB of memory)")] = False,
) -> None:
    """Time AdaptPrune's selection on a CUDA device."""
    from lib.study.costs.kernel_bench import record

    print(record(out, repeats, prefill=not no_prefill).iloc[:, :12].to_string(index=False))
