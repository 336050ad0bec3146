"""The study's three questions, answered in a few sentences and pictures out of committed tables, for the front pages."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lib.study import compare, speedups
from lib.study.arms import TIGHT
from lib.study.factorial import CUES
from lib.study.looks import look
from lib.study.tables import ALL

BEFORE, INSIDE = "before the language model", "inside it, after layer 2"
SHOWN = (
    ("none", ""),
    ("oracle", BEFORE),
    ("divprune", BEFORE),
    ("desap", BEFORE),
    ("cls", BEFORE),
    ("random", BEFORE),
    ("adaptprune", INSIDE),
    ("fastv", INSIDE),
    (f"random{compare.INSIDE}", INSIDE),
    ("blind", ""),
)
TIMED = ("desap", "adaptprune")
KEPT = 64  # of the papers' 576 tokens, where operations are told
RECURS = {"yes": "same sign in all {}", "no effect": "no effect in any of {}", "differs": "differs among {}"}


def answers(root: Path) -> str:
    """Answer which tokens, which cue and what saving from a repository's tables; "" where it has none of them.

    Raises
    ------
    ValueError
        When some of the tables are there and others are not.
    """
    paths = [root / "data" / "tables" / name for name in ("accuracy.csv", "seed_effects.csv")]
    paths += [root / "figures" / name for name in ("30_shares.csv", "D-11_countings.csv")]
    lacking = [path.name for path in paths[1:] if not path.is_file()]
    if len(lacking) == len(paths) - 1:  # every repository has an accuracy table
        return ""
    if lacking:
        raise ValueError(f"{', '.join(lacking)} not found; run: make figures")
    accuracy, seeds, shares, countings = map(pd.read_csv, paths)
    parts = [
        "## Which visual tokens can go?",
        which_tokens(accuracy),
        _picture("00_kept_tokens", f"{TIGHT} tokens kept by each method for one question, and its answer"),
        _picture("11_accuracy_curve", "accuracy by method and tokens kept, with 95 % intervals"),
        "## Which cue says so?",
        which_cue(shares, seeds),
        _picture("30_combinations", "accuracy of the sixteen combinations of cues, with 95 % intervals"),
        "## What does it really save?",
        what_saving(countings, speedups.of_setup(speedups.load(root / "data" / "records" / "cost"))),
        _picture("41_break_even", "times faster than unpruned by length of the answer, with 95 % intervals"),
    ]
    return "\n\n".join(parts)


def _picture(name: str, told: str) -> str:
    return f"![{told}](figures/{name}.png)"


def which_tokens(accuracy: pd.DataFrame) -> str:
    """Tell accuracies at the tightest budget, before and inside the language model (`lib.study.tables.accuracy_table`)."""
    rows = accuracy[accuracy["suite"] == ALL]
    lines = ["| choice | visual tokens | cut | accuracy [95 % interval] |", "|---|---|---|---|"]
    for arm, where in SHOWN:
        mine = rows[rows["method"] == arm]
        row = (mine[mine["keep"] == TIGHT] if where else mine).iloc[0]
        numbers = f"{row['accuracy']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        lines.append(f"| {look(arm.partition('/')[0]).label} | {row['keep']} | {where} | {numbers} |")
    return "\n".join(
        [
            "What the embedded model answers right. The oracle is told where the answer lies. Inside, the model's own attention has",
            "found the answer by layer 2, unlike what is reported of large models ([81](notebooks/81_is_scenes_enough.ipynb)); all",
            "methods at all budgets stand in [31](notebooks/31_head_to_head.ipynb).",
            "",
            *lines,
        ]
    )


def which_cue(shares: pd.DataFrame, seeds: pd.DataFrame) -> str:
    """Tell each cue's share at the tightest budget (`lib.study.factorial.effects`), and whether it recurs (`lib.study.seeds.effects`)."""
    mine = shares[
        (shares["kind"] == "shapley") & (shares["suite"] == ALL) & (shares["keep"] == TIGHT)
    ].set_index("cue")
    trainings = f"{len(set(seeds['training'].astype(str)) - {'mean'})} trainings"
    holds = dict(zip(seeds["effect"], seeds["holds"], strict=True))
    lines = ["| cue | gain in accuracy [95 % interval] | from other seeds |", "|---|---|---|"]
    for cue in sorted(CUES, key=lambda cue: -mine.loc[cue, "estimate"]):
        row = mine.loc[cue]
        numbers = f"{row['estimate']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        lines.append(f"| {cue} | {numbers} | {RECURS[holds[f'share of the {cue} cue']].format(trainings)} |")
    return "\n".join(
        [
            f"What a cue adds at {TIGHT} tokens before the language model, averaged over all orders of adding the four. Questions differ:",
            "[30](notebooks/30_cues.ipynb).",
            "",
            *lines,
        ]
    )


def what_saving(countings: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Tell operations of the 7B model by way of counting them, and what fewer became in time where it was measured.

    Parameters
    ----------
    countings
        Numbers plotted for claim D-11.
    rows
        One setup's recorded times (`lib.study.speedups.of_setup`).
    """
    less = countings[countings["kept"] == KEPT]
    lines = ["| operations of the prefill that are counted | times fewer |", "|---|---|"]
    lines += [f"| {row['counting']} | {row['times']:.1f} |" for row in less.to_dict("records")]
    setup = rows.iloc[0]
    timed = speedups.answer_sentence(rows, TIMED).removeprefix("**Answer.** ")
    return "\n".join(
        [
            f"Operations of LLaVA-1.5-7B from 576 to {KEPT} visual tokens, by what is counted:",
            "",
            *lines,
            "",
            f"Time of **{setup['architecture']}**, random weights, on {setup['device']}. {timed} More in",
            "[41](notebooks/41_latency.ipynb).",
        ]
    )
