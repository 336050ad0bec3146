"""What `python -m lib live` is asked for, checked before anything heavy is imported.

What is missing on this machine is named at once, with the command that fetches it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lib.models.checkpoints import locate
from lib.paths import RUNS, user_path
from lib.study.harness.benchmarks import CLIP, Benchmark, chosen
from lib.study.harness.data_files import files_of

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a command line asks for, checked as far as it can be without loading anything heavy."""

    name: str
    folder: Path
    clip: str
    benchmarks: tuple[Benchmark, ...]
    files: tuple[dict[str, list[Path]], ...]
    methods: tuple[tuple[str, tuple[tuple[str, object], ...]], ...]
    budgets: tuple[int | float, ...]
    seed: int
    out: Path
    batch: int
    device: str
    dtype: str
    template: str
    square: bool
    limit: int


def budget_of(text: str) -> int | float:
    """A budget from the command line: 64 keeps 64 tokens, 0.5 half of them."""
    try:
        found = int(text) if text.isdigit() else float(text)
    except ValueError as error:
        raise ValueError(f"--keep must be counts or ratios, got {text!r}") from error
    if not found > 0:  # NaN is not either
        raise ValueError(f"--keep must be above 0, got {text!r}")
    return found


def method_of(text: str) -> tuple[str, tuple[tuple[str, object], ...]]:
    """A method from the command line with its fields: "desap/share=1.0/merge=false"; values are JSON or plain words.

    Raises
    ------
    ValueError
        On a field without a value, or one that has its own flag.
    """
    name, *words = text.strip().split("/")
    fields = {}
    for word in words:
        field, equals, value = word.partition("=")
        if not equals or not field:
            raise ValueError(f"--methods must write fields as name=value, got {word!r}")
        if field in ("keep", "seed"):
            raise ValueError(f"--methods must not set {field}, which has the flag --{field}")
        try:
            fields[field] = json.loads(value)
        except json.JSONDecodeError:
            fields[field] = value
    return name, tuple((field, tuple(v) if isinstance(v, list) else v) for field, v in fields.items())


def _found(absent: list[str], find: Callable[[], T]) -> T | None:
    """What `find` finds; what it misses is put on the list, so that all that has to be fetched is told at once."""
    try:
        return find()
    except OSError as error:
        absent.append(str(error))
        return None


def plan_of(
    *,
    model: str,
    benchmarks: str,
    methods: str,
    keep: str,
    data: Path | None,
    out: Path | None,
    clip: str,
    batch: int,
    limit: int,
    seed: int,
    **rest: str | bool,
) -> Plan:
    """Check a command line and find its files; nothing heavy is imported. `rest` is what `Plan` takes as it is.

    Raises
    ------
    ValueError
        A benchmark, budget or number that makes no sense.
    OSError
        A model or data set that is not on this machine, with the command that fetches it.
    """
    asked = chosen(benchmarks)
    numbers = {"batch": batch, "limit": limit, "seed": seed}
    for name, value in numbers.items():
        if value < (least := 1 if name == "batch" else 0):
            raise ValueError(f"--{name} must be at least {least}, got {value}")
    budgets = tuple(budget_of(word.strip()) for word in keep.split(","))
    arms = tuple(dict.fromkeys(map(method_of, ["none", *methods.split(",")])))
    absent: list[str] = []
    folder = _found(absent, lambda: locate(model))
    if clip:
        _found(absent, lambda: locate(clip))
    files = tuple(_found(absent, lambda of=of: files_of(of, data)) for of in asked)
    if absent:
        raise FileNotFoundError("\n".join(absent))
    name = user_path(model).resolve().name if user_path(model).is_dir() else model
    return Plan(
        name=name,
        folder=folder,
        clip=clip or ("" if (folder / "clip").is_dir() else CLIP),
        benchmarks=asked,
        files=files,
        methods=arms,
        budgets=budgets,
        out=out or RUNS / "live" / name.replace("/", "__"),
        **numbers,
        **rest,
    )
