"""Commands that ask, train, check and tell; what a command needs is imported when it runs."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from lib.commands.options import option, path, switch, to_path
from lib.paths import ROOT, RUNS


def live(
    model: Annotated[
        str, typer.Argument(help="repository in the local hub cache, or folder of a checkpoint")
    ],
    benchmarks: Annotated[str, option("comma list (gqa,pope); all: those of single images")] = "all",
    methods: Annotated[
        str,
        option("comma list, fields behind slashes (desap/share=1.0/merge=false); `none` is asked as well"),
    ] = "desap,adaptprune,fastv",
    keep: Annotated[str, option("comma list of budgets: counts (64) or ratios (0.111)")] = "64",
    data: Annotated[
        Path | None,
        path("local parquet files, one folder a repository (GQA, POPE ...)  [default: the hub cache]"),
    ] = None,
    out: Annotated[
        Path | None, path("of answers, records and table  [default: data/runs/live/MODEL]")
    ] = None,
    batch: Annotated[int, option("questions at once; halved when memory runs out")] = 8,
    device: Annotated[str, option("auto, cpu, cuda or cuda:0")] = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"], option("auto: float32 on a host, else as stored")
    ] = "auto",
    template: Annotated[
        Literal["own", "vicuna"], option("own: the processor's chat template; vicuna: LLaVA-1.5's")
    ] = "own",
    square: Annotated[
        bool, switch("--square", "pad pictures to squares, as LLaVA-1.5 (not NeXT) was evaluated")
    ] = False,
    clip: Annotated[
        str,
        option(
            "text tower for methods that read the question; else the model's `clip` folder, else OpenAI's"
        ),
    ] = "",
    limit: Annotated[int, option("first questions of each benchmark; 0 takes all")] = 0,
    seed: Annotated[int, option("of methods that draw")] = 0,
) -> None:
    """Ask a model of your own the papers' benchmarks.

    Nothing is downloaded: what is missing is named with the command that fetches it. An interrupted run goes on where it
    stopped. Weights are read from safetensors only and no code of a repository is run.
    """
    given = dict(locals())
    from lib.study.harness.plan import plan_of

    plan = plan_of(**given)
    from lib.study.harness.own_model import carry_out  # with torch, once nothing is missing

    print(f"done: {carry_out(plan)}")


def train(
    out: Annotated[Path, path("gets checkpoints/ and model/")],
    seed: Annotated[int, option("of weights and pictures")] = 0,
    scale: Annotated[float, option("factor of all step counts")] = 1.0,
    grid: Annotated[int, option("visual tokens a side", "{12,24}")] = 12,
    device: Annotated[Literal["cpu", "cuda"], option("where to train")] = "cpu",
    minutes: Annotated[float, option("stop after so long with a checkpoint, status 3")] = math.inf,
) -> int:
    """Train the embedded model; repeat the command to go on."""
    from lib.study.scenes.training.batches import Paused
    from lib.study.scenes.training.recipe import recipe_of
    from lib.study.scenes.training.train import train

    workers = min(14, (os.cpu_count() or 1) - 1) if device == "cuda" else 0
    options = {"recipe": recipe_of(grid), "device": device, "workers": workers, "minutes": minutes}
    try:
        print(f"done: {train(out, scale, seed, **options)}")
    except Paused as paused:
        print(f"not finished: {paused}; run the same command again to go on")
        return 3
    return 0


def seeds(
    model: Annotated[str, typer.Argument(help="folder of a finished training, as `train` leaves it")],
    questions: Annotated[int, option("questions a suite; 0 takes all")] = 0,
    out: Annotated[
        Path | None, path("where the records go  [default: data/seeds/SEED, all questions alone]")
    ] = None,
) -> None:
    """Record a further training: its answers and measures."""
    from lib.models.checkpoints import locate
    from lib.study.scenes.seeds import record

    print(f"done: {record(locate(model), questions, out)}")


def prepare(sweep: Annotated[Path, typer.Argument(parser=to_path, metavar="SWEEP.yml")]) -> None:
    """Write a sweep's notebooks with parameters, run none."""
    from lib.study.prepare import prepare

    made = prepare(sweep)
    print(f"done: {len(made)} notebooks in {made[0].parent.relative_to(ROOT)}")


def verify(
    notebooks: Annotated[list[str] | None, typer.Argument(metavar="[STEM]...", help="none: all")] = None,
    jobs: Annotated[int, option("notebooks at a time", "N")] = 2,
    write_manifest: Annotated[
        bool,
        switch("--write-manifest", "after new records were made on purpose: their list, and stop"),
    ] = False,
) -> int:
    """Compute every table, number and verdict again.

    The status is 1 on any difference.
    """
    from lib.study.pages import manifest, verify
    from lib.study.rounding import FIGURES

    if write_manifest:
        for name in manifest.CHECKED:
            print(f"done: {manifest.write_manifest(ROOT / name).relative_to(ROOT)}")
        return 0
    found, seen = verify.verify(stems=notebooks or [], jobs=jobs)
    for difference in found:
        print(difference)
    for name, command in verify.SCRIPTED.items():
        print(f"not verified: data/tables/{name} (measured by {command})")
    print(f"compared to the digits that recur on every processor: figures {', '.join(FIGURES)}")
    print(f"{len(seen)} files recomputed, {len(found)} differences")
    return 1 if found else 0


def readme(
    write: Annotated[
        bool, switch("--write", "the committed results into README.md and the model card")
    ] = False,
    show: Annotated[Path | None, path("print the verdicts of a run's output folder")] = None,
) -> None:
    """Write results into README.md, or show those of a run."""
    from lib.study.pages import readme

    if write == (show is not None):
        raise typer.BadParameter("give --write or --show FOLDER, one of them")
    if show is not None:
        print(readme.show(show))
        return
    for file, changed in readme.write_readme().items():
        print(f"{file.relative_to(ROOT)} {'written' if changed else 'was up to date'}")


def report(
    out: Annotated[Path, path("where to build")] = RUNS / "report",
    explorer: Annotated[
        Path | None, path("use this one instead of asking the model now", "FILE.json")
    ] = None,
) -> int:
    """Build the static site of notebooks, verdicts, figures."""
    from lib.study.pages.site.build import build

    return build(out, explorer)


def explorer(
    out: Annotated[Path, path("what to write", "FILE.json")],
    pictures: Annotated[int, option("of the test set, from the first")] = 6,
) -> None:
    """Ask the embedded model for the report's explorer page."""
    from lib.study.pages.explorer import write

    print(f"done: {write(out, pictures)}")
