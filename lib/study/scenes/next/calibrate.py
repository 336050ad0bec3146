"""Does the model stand where LLaVA stands? Controls that no claim is about, on validation pictures, beside published values.

`python -m lib.study.scenes.next.calibrate --model FOLDER` asks under `none`, `random`, `uniform`, `pool`, `downsample` and `blind`
alone. The range of the objects' sizes (`--sizes`) is the knob: it is chosen here, before any method that a claim judges is run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm

from lib.models.embedded import PROMPT
from lib.models.hub import Loaded, load
from lib.models.prune import prune
from lib.paths import PUBLISHED, user_path
from lib.pruning.methods import Method, make
from lib.study.metrics import exact_match
from lib.study.scenes.layout import Scenes
from lib.study.scenes.next.words import SUITES, benchmark
from lib.study.scenes.next.world import Layout
from lib.study.scenes.questions import Question
from lib.study.stats import mean_interval

SEED = 2026
BUDGETS = (144, 64)  # of 576, where random choice and pooling are published
RANDOM_SEEDS = (0, 1)
WANTED = {("random", 64): (0.85, 0.93), ("random", 144): (0.92, 0.97)}  # share of the unpruned accuracy
BLIND_GAP = 0.25  # unpruned minus blind at least, on each suite
ARMS = ("none", "blind", "random", "uniform", "pool", "downsample")
BATCH = 28  # questions a forward pass


def arms(budgets: Sequence[int] = BUDGETS) -> list[Method]:
    """The controls at each budget; random choice with each of its seeds."""
    drawn = [make("random", keep=keep, seed=seed) for keep in budgets for seed in RANDOM_SEEDS]
    rest = [make(name, keep=keep) for name in ("uniform", "pool", "downsample") for keep in budgets]
    return [make("none"), make("blind"), *drawn, *rest]


@torch.no_grad()
def ask(
    loaded: Loaded, scenes: Scenes, asked: list[list[Question]], methods: Iterable[Method]
) -> pd.DataFrame:
    """One row a question and arm: `method, keep, seed, suite, picture, correct`."""
    flat = [(row, question) for row, found in enumerate(asked) for question in found]
    batches, rows = [flat[first : first + BATCH] for first in range(0, len(flat), BATCH)], []
    for method in tqdm(list(methods), desc="controls", leave=False):
        for some in batches:
            images = [Image.fromarray(scenes.images[row]) for row, _ in some]
            prompts = [PROMPT.format(question=question.text) for _, question in some]
            inputs = loaded.processor(images=images, text=prompts, padding=True, return_tensors="pt")
            with prune(loaded.model, method, text=[question.text for _, question in some], clip=loaded.clip):
                said = loaded.answers(inputs, max_new_tokens=2, do_sample=False)
            right = exact_match(said, [question.answer for _, question in some])
            seed = getattr(method, "seed", -1)
            rows += [
                (method.name, method.keep or 0, seed, question.suite, row, float(one))
                for (row, question), one in zip(some, right, strict=True)
            ]
    return pd.DataFrame(rows, columns=["method", "keep", "seed", "suite", "picture", "correct"])


def suite_table(answers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each arm by suite, and over all suites."""
    table = answers.pivot_table(index=["method", "keep"], columns="suite", values="correct", sort=False)
    table = table[[suite for suite in SUITES if suite in table]]
    return table.assign(all=table.mean(axis=1)).reset_index()


def calibration_table(answers: pd.DataFrame, published: pd.DataFrame | None = None) -> pd.DataFrame:
    """Hold the controls against what is published and what was asked of them.

    Parameters
    ----------
    answers : rows of `ask`.
    published : rows of `data/published/random_and_pooling.csv`, read when None.

    Returns
    -------
    DataFrame
        `control, keep, retained, low, high, published, asked, holds`: the mean over suites of pruned over unpruned accuracy
        with its interval over pictures (the unpruned accuracies taken as they are). The rows of `blind` hold the gap of
        each suite in accuracy. `holds` is empty where nothing was asked.
    """
    known = pd.read_csv(PUBLISHED / "random_and_pooling.csv") if published is None else published
    known = {
        (method, tokens): percent / 100
        for method, tokens, percent in known[["method", "tokens", "average_percent"]].itertuples(index=False)
    }
    full = answers[answers["method"] == "none"].groupby("suite")["correct"].mean()
    if full.empty or not (full > 0).all():
        raise ValueError(
            f"answers must hold the arm none with a right answer in every suite, got {dict(full)}"
        )
    rows, retained = [], {}
    pruned = answers[~answers["method"].isin(["none", "blind"])]
    for (name, keep), some in pruned.groupby(["method", "keep"], sort=False):
        told = mean_interval(some["correct"] / some["suite"].map(full), some["picture"])
        retained[name, keep] = told.estimate
        value = known.get(({"pool": "pooling"}.get(name, name), keep), np.nan)
        asked, holds = "", ""
        if (name, keep) in WANTED:
            low, high = WANTED[name, keep]
            asked, holds = f"{low:.2f} to {high:.2f}", low <= told.estimate <= high
        elif (name, keep) == ("pool", 144) and ("random", 144) in retained:
            asked, holds = "above random", told.estimate > retained["random", 144]
        rows.append((name, keep, told.estimate, told.low, told.high, value, asked, holds))
    blind = answers[answers["method"] == "blind"]
    for suite, some in blind.groupby("suite", sort=False):
        told = mean_interval(full[suite] - some["correct"], some["picture"])
        asked = f"{suite}: at least {BLIND_GAP} below unpruned"
        rows.append(
            ("blind", 0, told.estimate, told.low, told.high, np.nan, asked, told.estimate >= BLIND_GAP)
        )
    names = ["control", "keep", "retained", "low", "high", "published", "asked", "holds"]
    return pd.DataFrame(rows, columns=names)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: prints both tables and writes them as `calibration.csv` and `suites.csv` where `--out` says."""
    made = argparse.ArgumentParser(prog="python -m lib.study.scenes.next.calibrate", description=__doc__)
    made.add_argument("--model", type=user_path, required=True, help="folder of a trained model")
    made.add_argument(
        "--pictures", type=int, default=100, help="validation pictures, a question of each suite each"
    )
    made.add_argument("--sizes", type=int, nargs=2, default=Layout().sizes, help="of the objects, pixels")
    made.add_argument("--out", type=user_path, help="folder for the tables")
    given = made.parse_args(arguments)
    layout = Layout(sizes=tuple(given.sizes))
    answers = ask(load(given.model), *benchmark("validation", given.pictures, SEED, layout), arms())
    for name, table in (("suites", suite_table(answers)), ("calibration", calibration_table(answers))):
        print(table.round(3).to_string(index=False))
        if given.out:
            given.out.mkdir(parents=True, exist_ok=True)
            described = table.assign(
                low_size=layout.sizes[0], high_size=layout.sizes[1], pictures=given.pictures
            )
            described.to_csv(given.out / f"{name}.csv", index=False, float_format="%.4f", lineterminator="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
