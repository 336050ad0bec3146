"""Trainings of the embedded model from several seeds: does a verdict, an effect or a property hold in all of them?

Seed 0 is the shipped model, whose records lie in `data/records`; the others' answers, measures and training records lie
in `data/seeds/N`. Run ``python -m lib seeds MODEL`` to record a further training; it goes on where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lib.paths import MODEL, RECORDS, SEEDS
from lib.study import factorial, records
from lib.study.arms import (
    RANDOM_SEEDS,
    TIGHT,
    Arm,
    adaptprune_arms,
    cue_arms,
    desap_arms,
    peer_arms,
    shared_arms,
)
from lib.study.cards import CARD, read_card
from lib.study.claims import evidence_of_tier, judge_all, read_claims
from lib.study.compare import INSIDE, SHUFFLED
from lib.study.rules import ANY_BUDGET, Clause, find, parse
from lib.study.scenes import claim_measures, retrieval
from lib.study.scenes import properties as realism
from lib.study.scenes.evaluate import read_arms, record_arms
from lib.study.scenes.gate import gate_table
from lib.study.stats import mean_interval
from lib.study.tables import ALL, accuracy_table

TIER = "trained-small"  # the claims whose evidence is a trained model's
TASK = "desap/share=1.0"


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A paired difference of two arms at the tightest budget, over all suites."""

    name: str
    left: str
    right: str


# Chosen before a second model had been asked anything.
EFFECTS = (
    Effect(name="unpruned - DeSAP", left="none", right="desap"),
    Effect(name="oracle - DeSAP", left="oracle", right="desap"),
    Effect(name="DeSAP - random", left="desap", right="random"),
    Effect(name="[CLS] - random", left="cls", right="random"),
    Effect(name="DeSAP - [CLS]", left="desap", right="cls"),
    Effect(name="DivPrune - DeSAP", left="divprune", right="desap"),
    Effect(name="text cue alone: own question - another", left=TASK, right=TASK + SHUFFLED),
    Effect(
        name="text cue alone: decoupled - vanilla",
        left=f"{TASK},aligned=False",
        right=f"{TASK},similarity=vanilla,aligned=False",
    ),
    Effect(name="DeSAP: qq - kk attention", left="desap", right="desap/attention=kk"),
    Effect(name="DeSAP: original - renumbered positions", left="desap/positions=original", right="desap"),
    Effect(name="FastV - random, both at layer 2", left="fastv", right="random" + INSIDE),
    Effect(name="AdaptPrune - FastV, both at layer 2", left="adaptprune", right="fastv"),
    Effect(name="AdaptPrune - FastV, both at layer 1", left="adaptprune/layer=1", right="fastv/layer=1"),
)
NUMBERS = ["n", "estimate", "low", "high"]


def recorded() -> list[int]:
    """Seeds whose models are recorded, the shipped one first."""
    return [0, *sorted(int(card.parent.name) for card in SEEDS.glob(f"*/{CARD}"))]


def folder_of(seed: int) -> Path:
    """Where the records of a seed's model lie."""
    return SEEDS / str(seed) if seed else RECORDS


def card_of(seed: int) -> dict:
    """Training record of a seed's model."""
    return read_card(SEEDS / str(seed) if seed else MODEL)


def seed_arms() -> list[Arm]:
    """Arms that the rules of the register name, those of `EFFECTS`, and the cue study at the tightest budget.

    Random choice has as many draws as `RANDOM_SEEDS` at the tightest budget and one elsewhere.
    """
    wanted = {
        (arm, clause.budget)
        for rule in read_claims()["rule"]
        for clause in parse(rule)
        if clause.kind == "order"
        for arm in (clause.left, clause.right)
    }
    wanted |= {(arm, TIGHT) for effect in EFFECTS for arm in (effect.left, effect.right)}
    wanted |= {(arm.label, arm.method.keep) for arm in cue_arms() if arm.method.keep == TIGHT}
    every = [*shared_arms(), *desap_arms(), *adaptprune_arms(), *cue_arms(), *peer_arms(len(RANDOM_SEEDS))]
    return [
        arm
        for arm in dict.fromkeys(every)
        if arm.label in ANY_BUDGET
        or ((arm.label, arm.method.keep) in wanted and (arm.seed <= 0 or arm.method.keep == TIGHT))
    ]


def record(model: Path, questions: int = 0, folder: Path | None = None) -> Path:
    """Ask a trained model every arm of `seed_arms`, measure it, and keep its training record; return the folder.

    Parameters
    ----------
    model
        Folder of a finished training.
    questions
        A suite; 0 takes all.
    folder
        Where to; None takes the committed place, which holds all questions.

    Raises
    ------
    ValueError
        When the model is of seed 0, whose records notebooks write, or unfinished, or a folder is to be named.
    """
    seed = read_card(model)["tower"]["seed"]
    if not seed:
        raise ValueError(f"{model.name}: seed 0 is the shipped model; its notebooks record it")
    if folder is None and questions:
        raise ValueError(
            f"--out must name a folder, as questions is {questions}: the committed records hold all"
        )
    folder = folder_of(seed) if folder is None else folder
    record_arms(seed_arms(), folder, questions, model)
    claim_measures.record_mechanisms(folder, questions, model)
    realism.record(folder, questions, model)
    retrieval.record(folder, model=model)
    shutil.copy(model / CARD, folder / CARD)
    return folder


def read(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answers under `seed_arms` and measures of one seed's model; the constructed trials belong to all."""
    folder = folder_of(seed)
    names = ("D-16_mechanisms", "realism", "retrieval")
    parts = [records.read(folder / "measures" / f"{name}.parquet", "measure") for name in names]
    parts.append(records.read(RECORDS / "measures" / "A-6_identity.parquet", "measure"))
    return read_arms(seed_arms(), folder), pd.concat(parts, ignore_index=True)


def gates(found: Mapping[int, tuple[pd.DataFrame, pd.DataFrame]], seed: int = 0) -> pd.DataFrame:
    """Judge the gate of each training: suites, then retrieval both ways.

    Parameters
    ----------
    found
        As `read` gives it, by seed of the training.
    seed
        Of the intervals.

    Returns
    -------
    DataFrame
        training, suite, n, accuracy, low, high, asked, blind, gap, gate; retrieval has no blind answers.
    """
    parts = []
    for training, (accuracy, measured) in found.items():
        ends = accuracy[accuracy["arm"].isin(ANY_BUDGET)]
        suites = gate_table(accuracy_table(ends, seed))
        parts.append(suites[suites["suite"] != ALL].assign(training=training))
        rows = []
        for name, way in ((retrieval.IMAGE, "image to text"), (retrieval.TEXT, "text to image")):
            mine = measured[measured["measure"] == name]
            got = mean_interval(mine["value"].to_numpy(), mine["image_id"].to_numpy(), seed)
            met = "met" if got.estimate >= retrieval.ASKED else "not met"
            rows.append((f"retrieval, {way}", got.n, got.estimate, got.low, got.high, retrieval.ASKED, met))
        columns = ["suite", "n", "accuracy", "low", "high", "asked", "gate"]
        parts.append(pd.DataFrame(rows, columns=columns).assign(training=training))
    table = pd.concat(parts, ignore_index=True)
    return table[["training", *[name for name in table.columns if name != "training"]]].round(3)


def verdicts(found: Mapping[int, tuple[pd.DataFrame, pd.DataFrame]], seed: int = 0) -> pd.DataFrame:
    """Judge the register on each training alone, by the same rules and corrections.

    Returns
    -------
    DataFrame
        id, claim and committed (the register's verdict) of every claim that a trained model judges; then
        "seed N" and "estimate N" (of the weakest clause) a training, and "all": yes where all verdicts are the same.
    """
    register = read_claims()
    mine = register[register["tier"] == TIER].reset_index(drop=True)
    table = mine[["id", "claim"]].assign(committed=mine["verdict"])
    for training, (accuracy, measured) in found.items():
        judged = judge_all(register, accuracy, measured, seed)[0].set_index("id").loc[table["id"]]
        table[f"seed {training}"] = judged["verdict"].to_numpy()
        table[f"estimate {training}"] = judged["estimate"].to_numpy()
    same = table[[f"seed {training}" for training in found]].nunique(axis=1) == 1
    return table.assign(all=same.map({True: "yes", False: "no"}))


def _estimates(accuracy: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Every effect of `EFFECTS` and each cue's Shapley share in one set of answers: effect, n, estimate, low, high."""
    nothing, rows = records.empty("measure"), []
    evidence = evidence_of_tier(TIER, accuracy, nothing, seed)
    for effect in EFFECTS:
        clause = Clause(kind="order", text=effect.name, left=effect.left, right=effect.right, budget=TIGHT)
        got = find(clause, evidence)
        rows.append((effect.name, got.n, got.estimate, got.low, got.high))
    cues = factorial.effects(factorial.wide(accuracy[accuracy["keep"] == TIGHT]), seed)
    cues = cues[(cues["kind"] == "shapley") & (cues["suite"] == ALL)]
    shares = cues.assign(effect=cues["cue"].map(factorial.SHARE.format))[["effect", *NUMBERS]]
    return pd.concat([pd.DataFrame(rows, columns=["effect", *NUMBERS]), shares], ignore_index=True)


def effects(found: Mapping[int, tuple[pd.DataFrame, pd.DataFrame]], seed: int = 0) -> pd.DataFrame:
    """Measure every effect in each training, and in the mean of their answers.

    Returns
    -------
    DataFrame
        effect, training (a seed, or "mean"), n, estimate, low, high, and holds: "yes" where the intervals of all
        trainings lie on one side of zero, "no effect" where all hold zero, else "differs". Intervals are over pictures.
    """
    parts = [_estimates(rows, seed).assign(training=str(name)) for name, (rows, _) in found.items()]
    alone = pd.concat(parts, ignore_index=True)
    pooled = pd.concat([rows for rows, _ in found.values()], ignore_index=True).assign(model=MODEL.name)
    table = pd.concat([alone, _estimates(pooled, seed).assign(training="mean")], ignore_index=True)
    said = {name: _holds(mine) for name, mine in alone.groupby("effect")}
    columns = ["effect", "training", *NUMBERS]
    return table[columns].round(4).assign(holds=table["effect"].map(said))


def _holds(rows: pd.DataFrame) -> str:
    if (rows["low"] > 0).all() or (rows["high"] < 0).all():
        return "yes"
    return "no effect" if ((rows["low"] <= 0) & (rows["high"] >= 0)).all() else "differs"


def properties(found: Mapping[int, tuple[pd.DataFrame, pd.DataFrame]], seed: int = 0) -> pd.DataFrame:
    """Which properties of real models each training shows: `realism.table` with a column `training`."""
    parts = [realism.table(rows, seed).assign(training=name) for name, (_, rows) in found.items()]
    return pd.concat(parts, ignore_index=True)
