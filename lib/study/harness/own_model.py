"""Ask a model of the hub, or of a folder, the papers' benchmarks under pruning, and print what it keeps of its scores.

Run ``python -m lib.study.harness.own_model MODEL --benchmarks gqa,pope --methods desap --keep 192,128,64``; see ``--help``. Nothing
is downloaded: what is missing is named at once, with the command that fetches it. A run that was interrupted goes on where
it stopped when it is started again. Weights are read from safetensors only and no code of a repository is run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lib.models.checkpoints import locate
from lib.paths import RUNS, user_path
from lib.study.harness.benchmarks import CLIP, NAMES, Benchmark, chosen, files_of

DTYPES = ("auto", "float32", "float16", "bfloat16")
TEMPLATES = ("own", "vicuna")
GATED = "(a gated repository also wants its terms accepted on its page, and `hf auth login`)"
ALONE = ("none", "blind")  # methods without a budget
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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m lib.study.harness.own_model",
        description="Ask a vision-language model the papers' benchmarks, unpruned and pruned. Nothing is downloaded: what is "
        "missing is named with the command that fetches it. An interrupted run goes on where it stopped.",
    )
    add = made.add_argument
    add("model", metavar="MODEL", help="repository in the local hub cache, or folder of a checkpoint")
    add(
        "--benchmarks",
        default="all",
        help=f"comma list of {', '.join(NAMES)}; all (default): those of single images",
    )
    add(
        "--methods",
        default="desap,adaptprune,fastv",
        help="comma list, fields behind slashes (desap/share=1.0/merge=false); `none` is always asked as well",
    )
    add("--keep", default="64", help="comma list of budgets: counts (64) or ratios (0.111); default 64")
    add(
        "--data",
        type=user_path,
        help="folder of local parquet files, one folder a repository (GQA, POPE ...); default: the hub cache",
    )
    add("--out", type=user_path, help="folder of answers, records and table; default data/runs/live/MODEL")
    add("--batch", type=int, default=8, help="questions at once (default 8); halved when memory runs out")
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:0")
    add("--dtype", default="auto", choices=DTYPES, help="auto (default): float32 on a host, else as stored")
    add(
        "--template",
        default="own",
        choices=TEMPLATES,
        help="own (default): the processor's chat template; vicuna: LLaVA-1.5's",
    )
    add(
        "--square", action="store_true", help="pad pictures to squares, as LLaVA-1.5 (not NeXT) was evaluated"
    )
    add(
        "--clip",
        help=f"text tower of methods that read the question; default the model's `clip` folder, else {CLIP}",
    )
    add("--limit", type=int, default=0, help="first questions of each benchmark; 0 (default) takes all")
    add("--seed", type=int, default=0, help="of methods that draw (default 0)")
    return made


def _found(absent: list[str], find: Callable[[], T]) -> T | None:
    """What `find` finds; what it misses is put on the list, so that all that has to be fetched is told at once."""
    try:
        return find()
    except OSError as error:
        absent.append(str(error))
        return None


def plan_of(given: argparse.Namespace) -> Plan:
    """Check a command line and find its files; nothing heavy is imported.

    Raises
    ------
    ValueError
        A benchmark, budget or number that makes no sense.
    OSError
        A model or data set that is not on this machine, with the command that fetches it.
    """
    benchmarks = chosen(given.benchmarks)
    for name, least in (("batch", 1), ("limit", 0), ("seed", 0)):
        if getattr(given, name) < least:
            raise ValueError(f"--{name} must be at least {least}, got {getattr(given, name)}")
    budgets = tuple(budget_of(word.strip()) for word in given.keep.split(","))
    methods = tuple(dict.fromkeys(map(method_of, ["none", *given.methods.split(",")])))
    absent: list[str] = []
    folder = _found(absent, lambda: locate(given.model))
    if given.clip:
        _found(absent, lambda: locate(given.clip))
    files = tuple(_found(absent, lambda of=of: files_of(of, given.data)) for of in benchmarks)
    if absent:
        raise FileNotFoundError("\n".join(absent))
    local = user_path(given.model).is_dir()
    name = user_path(given.model).resolve().name if local else given.model
    return Plan(
        name=name,
        folder=folder,
        clip=given.clip or ("" if (folder / "clip").is_dir() else CLIP),
        benchmarks=benchmarks,
        files=files,
        methods=methods,
        budgets=budgets,
        seed=given.seed,
        out=given.out or RUNS / "live" / name.replace("/", "__"),
        batch=given.batch,
        device=given.device,
        dtype=given.dtype,
        template=given.template,
        square=given.square,
        limit=given.limit,
    )


def carry_out(plan: Plan) -> Path:
    """Ask everything that is planned and write the table; where it lies.

    Raises
    ------
    ValueError, OSError
        Naming the method, file or row that cannot be used.
    """
    import torch
    from transformers.utils import logging

    from lib.models.hub import load
    from lib.pruning.methods import make
    from lib.study.arms import Arm
    from lib.study.harness import asking, shards
    from lib.study.tables import write_table

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    arms = [Arm(method=make(name, **dict(fields))) for name, fields in plan.methods if name in ALONE]
    for name, fields in plan.methods:
        if name in ALONE:
            continue
        seed = {"seed": plan.seed} if "seed" in _fields(make(name, keep=1, **dict(fields))) else {}
        arms += [Arm(method=make(name, keep=keep, **dict(fields), **seed)) for keep in plan.budgets]
    needs = {arm.method.name: arm.method.needs() for arm in arms}
    if blind := [name for name, need in needs.items() if need.evidence]:
        raise ValueError(
            f"method {blind[0]} needs to know where the answer is, which these benchmarks do not tell"
        )
    for of, files in zip(plan.benchmarks, plan.files, strict=True):
        shards.count(files[of.files], of.columns, of.where)
        if of.pictures:
            shards.count(files[of.pictures[0]], of.pictures[1:])
    reads = any(need.text or need.patches is not None for need in needs.values())
    device = ("cuda" if torch.cuda.is_available() else "cpu") if plan.device == "auto" else plan.device
    stored = None if device != "cpu" else torch.float32
    dtype = stored if plan.dtype == "auto" else getattr(torch, plan.dtype)
    loaded = load(plan.folder, clip=plan.clip if reads and plan.clip else None, dtype=dtype, device=device)
    asking.check_media(loaded, plan.benchmarks, plan.template)
    session = asking.Session(
        loaded=loaded,
        name=plan.name,
        weights=asking.weights_of(plan.folder),
        template=plan.template,
        square=plan.square,
        batch=plan.batch,
    )
    for of, files in zip(plan.benchmarks, plan.files, strict=True):
        for arm in arms:
            asking.answer_all(session, of, files, arm, plan.out, plan.limit)
    found = asking.table(plan.out, plan.benchmarks, arms, plan.limit)
    print(found.to_string(index=False, na_rep=""))
    return write_table(found, plan.out / "benchmarks.csv")


def _fields(method: object) -> tuple[str, ...]:
    return tuple(type(method).__dataclass_fields__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0 when all is answered, 2 when something is missing or wrong, 130 when stopped."""
    given = parser().parse_args(arguments)
    try:
        path = carry_out(plan_of(given))
    except (ValueError, OSError, MemoryError) as error:
        hint = f"\n{GATED}" if "hf download" in str(error) else ""
        print(f"error: {error}{hint}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here", file=sys.stderr)
        return 130
    print(f"done: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
