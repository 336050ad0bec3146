"""Scores of journalled answers, and what pruning keeps of the unpruned model's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lib.study.arms import Arm
from lib.study.harness import journal
from lib.study.harness.benchmarks import Benchmark
from lib.study.harness.scoring import METRICS, Rows
from lib.study.tables import ALL, retention

MEAN, WITHOUT = "mean", "mean without vizwiz"
COLUMNS = ("model", "method", "keep", "tokens", "benchmark", "metric", "n", "score", "retention")


def scores(out: Path, of: Benchmark, arm: Arm, limit: int = 0) -> pd.DataFrame:
    """Score one arm on one benchmark: rows of the table without retention, the metric that papers print first."""
    header, found, _ = journal.read(journal.path_of(out, of, arm))
    metric = METRICS[of.metric]
    rows = _rows(found[: limit or None])
    if limit:
        whole = metric.whole(rows)
        rows = _rows([row for row, fits in zip(found[:limit], whole, strict=True) if fits])
    if not rows.correct:
        raise ValueError(f"limit {limit} leaves {of.name} no group of questions to score")
    budget = getattr(arm.method, "keep", None)
    tokens = float(np.mean([row["keep"] for row in found[: limit or None]]))
    told = {"model": header["model"], "method": arm.label, "keep": "" if budget is None else str(budget)}
    return pd.DataFrame(
        {
            **told,
            "tokens": tokens,
            "benchmark": of.name,
            "metric": name,
            "n": len(rows.correct),
            "score": value * (100 if metric.percent and name != "rotations" else 1),
        }
        for name, value in metric.all(rows).items()
    )


def _rows(found: Sequence[Mapping]) -> Rows:
    names = ("prediction", "answer", "image_id", "extra", "correct")
    return Rows(*([row[name] for row in found] for name in names))


def table(out: Path, benchmarks: Iterable[Benchmark], arms: Sequence[Arm], limit: int = 0) -> pd.DataFrame:
    """Score every arm on every benchmark and relate it to the unpruned model.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`. Scores in percent, MME in points. Each benchmark's first metric has its retention: pruned
        over unpruned, in percent, empty where the unpruned model scores 0. Benchmark "mean" is the mean of the
        retentions over the benchmarks that the papers average; "mean without vizwiz" leaves VizWiz out, whose score
        rises under pruning. In both, n counts benchmarks.
    """
    rows = list(benchmarks)
    frame = pd.concat([scores(out, of, arm, limit) for of in rows for arm in arms], ignore_index=True)
    head = frame.groupby(["benchmark", "method", "keep"]).head(1)
    averaged = {of.name for of in rows if of.averaged}
    ratios = _ratios(head)
    keys = ["model", "method", "keep"]
    frame = frame.merge(ratios.rename(columns={"suite": "benchmark"}), how="left", on=[*keys, "benchmark"])
    frame.loc[~frame.index.isin(frame.groupby(["benchmark", *keys]).head(1).index), "retention"] = np.nan
    extra = []
    for name, left_out in ((MEAN, set()), (WITHOUT, {"vizwiz"})):
        some = head[head["benchmark"].isin(averaged - left_out)]
        if some.empty or not left_out <= averaged:
            continue
        means = _ratios(some)
        n = len(set(means["suite"]) - {ALL})
        extra.append(means[means["suite"] == ALL].assign(benchmark=name, metric="retention", n=n))
    found = pd.concat([frame, *extra], ignore_index=True).round({"score": 2, "tokens": 1})
    order = {arm.label: place for place, arm in enumerate(arms)}
    block = {name: place for place, name in enumerate(dict.fromkeys(found["benchmark"]))}
    places = found.assign(a=found["benchmark"].map(block), b=found["method"].map(order)).sort_values(
        ["a", "b"], kind="stable"
    )
    return found.loc[places.index, list(COLUMNS)].reset_index(drop=True)


def _ratios(head: pd.DataFrame) -> pd.DataFrame:
    """Retention in percent a benchmark and over all; benchmarks that the unpruned model fails have no ratio."""
    full = head[head["method"] == "none"].set_index("benchmark")["score"]
    known = head[head["benchmark"].map(full) > 0]
    scored = known.rename(columns={"benchmark": "suite", "score": "accuracy"})
    found = retention(scored[["model", "method", "keep", "suite", "accuracy"]])
    return found.assign(retention=(100 * found["retention"]).round(2))
