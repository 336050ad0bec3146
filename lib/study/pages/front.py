"""The study's three questions, answered in a few sentences and pictures out of committed tables, for the front pages."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lib.study import compare
from lib.study.arms import TIGHT
from lib.study.factorial import CUES, SHARE
from lib.study.pages import n41_tables, n41_times
from lib.study.pages.looks import look
from lib.study.scenes.properties import LAYER
from lib.study.tables import ALL
from lib.study.wording import markdown, row_interval

BEFORE, INSIDE = "before the language model", f"inside it, at layer {LAYER}"
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
SEEDS = ("seed_effects.csv", "seed_properties.csv")
EARLY = "real_auc_attention"  # the measure that says whether methods inside the language model are flattered
RECURS = {"yes": "same sign in all {}", "no effect": "no effect in any of {}", "differs": "differs among {}"}


def answers(root: Path) -> str:
    """Answer which tokens, which cue and what saving from a repository's tables; "" where it has none of them.

    Raises
    ------
    ValueError
        When some of the tables are there and others are not.
    """
    paths = [root / "data" / "tables" / name for name in ("accuracy.csv", *SEEDS)]
    paths += [root / "figures" / name for name in ("30_shares.csv", "D-11_countings.csv")]
    lacking = [path.name for path in paths[1:] if not path.is_file()]
    if len(lacking) == len(paths) - 1:  # every repository has an accuracy table
        return ""
    if lacking:
        raise ValueError(f"{', '.join(lacking)} not found; run: make figures")
    accuracy, seeds, properties, shares, countings = map(pd.read_csv, paths)
    parts = [
        "## Which visual tokens can go?",
        which_tokens(accuracy, properties),
        _picture("00_kept_tokens", f"{TIGHT} tokens kept by each method for one question, and its answer"),
        _picture("11_accuracy_curve", "accuracy by method and tokens kept, with 95 % intervals"),
        "## Which cue says so?",
        which_cue(shares, seeds),
        _picture("30_combinations", "accuracy of the sixteen combinations of cues, with 95 % intervals"),
        "## What does it really save?",
        what_saving(countings, n41_times.of_setup(n41_times.load(root / "data" / "records" / "cost"))),
        _picture("41_break_even", "times faster than unpruned by length of the answer, with 95 % intervals"),
    ]
    return "\n\n".join(parts)


def _picture(name: str, told: str) -> str:
    return f"![{told}](figures/{name}.png)"


def which_tokens(accuracy: pd.DataFrame, properties: pd.DataFrame) -> str:
    """Tell accuracies at the tightest budget, and what the shipped model's early attention does to those inside it.

    Parameters
    ----------
    accuracy
        As `lib.study.tables.accuracy_table` gives it.
    properties
        As `lib.study.scenes.seeds.properties` gives it.
    """
    rows, shown = accuracy[accuracy["suite"] == ALL], []
    for arm, where in SHOWN:
        mine = rows[rows["method"] == arm]
        (row,) = (mine[mine["keep"] == TIGHT] if where else mine).to_dict("records")
        shown.append(
            (look(arm.partition("/")[0]).label, row["keep"], where, row_interval(row, ".3f", "accuracy"))
        )
    (early,) = properties[(properties["measure"] == EARLY) & (properties["training"] == 0)].to_dict("records")
    told = (
        f"What the embedded model answers right. The oracle is told where the answer lies. Known of large models: {early['property']}; "
        f"this one is found {early['found']} ({row_interval(early, '.2f')}, {early['quantity']}; "
        f"{early['level']:g} is chance)"
    )
    told += f": {early['if_unlike']}. " if early["found"] == "unlike" else ". "
    told += "More: [81](notebooks/81_is_scenes_enough.ipynb); all methods at all budgets: [31](notebooks/31_head_to_head.ipynb)."
    columns = ["choice", "visual tokens", "cut", "accuracy [95 % interval]"]
    return f"{told}\n\n{markdown(pd.DataFrame(shown, columns=columns))}"


def which_cue(shares: pd.DataFrame, seeds: pd.DataFrame) -> str:
    """Tell each cue's share at the tightest budget and whether it recurs, from `factorial.effects` and `seeds.effects`."""
    mine = shares[
        (shares["kind"] == "shapley") & (shares["suite"] == ALL) & (shares["keep"] == TIGHT)
    ].set_index("cue")
    trainings = f"{len(set(seeds['training'].astype(str)) - {'mean'})} trainings"
    holds = dict(zip(seeds["effect"], seeds["holds"], strict=True))
    shown = []
    for cue in sorted(CUES, key=lambda cue: -mine.loc[cue, "estimate"]):
        row = mine.loc[cue]
        shown.append((cue, row_interval(row), RECURS[holds[SHARE.format(cue)]].format(trainings)))
    columns = ["cue", "gain in accuracy [95 % interval]", "from other seeds"]
    return (
        f"What a cue adds at {TIGHT} tokens before the language model, averaged over all orders of adding the four. Questions differ:\n"
        f"[30](notebooks/30_cues.ipynb).\n\n{markdown(pd.DataFrame(shown, columns=columns))}"
    )


def what_saving(countings: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Tell operations of the 7B model by way of counting them, and what fewer became in time where it was measured.

    Parameters
    ----------
    countings
        Numbers plotted for claim D-11.
    rows
        One setup's recorded times (`lib.study.pages.n41_times.of_setup`).
    """
    tokens = countings["kept"].max()
    less = countings[countings["kept"] == round(tokens / 9)]
    shown = pd.DataFrame(
        {
            "operations of the prefill that are counted": less["counting"],
            "times fewer": less["times"].map("{:.1f}".format),
        }
    )
    setup = rows.iloc[0]
    timed = n41_tables.answer_sentence(rows, TIMED).removeprefix("**Answer.** ")
    return (
        f"Operations of LLaVA-1.5-7B from {tokens} to {round(tokens / 9)} visual tokens, by what is counted:\n\n{markdown(shown)}\n\n"
        f"Time of **{setup['architecture']}**, random weights, on {setup['device']}. {timed} More in\n[41](notebooks/41_latency.ipynb)."
    )
