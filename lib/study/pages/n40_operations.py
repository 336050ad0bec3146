"""What pruning saves by the formulas: tables and sentences of notebook 40. Nothing is measured in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

from lib.models.architectures import LLAVA, MISTRAL, NEXT, Architecture
from lib.paths import PUBLISHED
from lib.pruning.methods import Method, make
from lib.study import cost
from lib.study.claims import judge_all, read_claims
from lib.study.cost import TEXT
from lib.study.costs.operations import selection_work
from lib.study.costs.points import BORN, WHOLE
from lib.study.pages.looks import look
from lib.study.records import KINDS
from lib.study.wording import listing

BUDGETS = (576, 192, 128, 64)
KEEP = 64
COMPARED = ("none", "desap", "cls", "divprune", "cdpruner", "fastv", "adaptprune", "pyramiddrop", "sparsevlm")
LABELS = MappingProxyType({WHOLE: "unpruned", BORN: "born short (ideal)"})


@dataclass(frozen=True)
class Judged:
    """The cost claims of the register with verdicts and clauses, as `lib.study.pages.sections.show_claims` reads them."""

    claims: pd.DataFrame
    clauses: pd.DataFrame


def printed(claim: str, quantity: str) -> dict[str, float]:
    """Read what a paper prints for a claim, by architecture ("" where none is named).

    Raises
    ------
    ValueError
        When the table has no such value.
    """
    table = pd.read_csv(PUBLISHED / "costs.csv", keep_default_na=False)
    mine = table[(table["claim"] == claim) & (table["quantity"] == quantity)]
    if mine.empty:
        raise ValueError(f"data/published/costs.csv has no {quantity!r} of claim {claim!r}")
    return dict(zip(mine["model"], mine["value"], strict=True))


def judged() -> Judged:
    """Judge the register's cost claims; they need no record."""
    register = read_claims()
    rows = register[register["kind"] == "cost"].reset_index(drop=True)
    return Judged(*judge_all(rows, *(pd.DataFrame(columns=list(KINDS[kind])) for kind in KINDS)))


def label(method: str) -> str:
    """A method's name in a table or figure."""
    return LABELS.get(method) or look(method).label


def made(name: str, keep: int) -> Method:
    """A method at a budget; the unpruned model has none."""
    return make(name) if name == WHOLE else make(name, keep=keep)


def by_part(names: Sequence[str] = COMPARED, keep: int = KEEP, sizes: Architecture = LLAVA) -> pd.DataFrame:
    """TFLOP (two a multiply-add) of each part up to the first token, one row a method, with their sum and `times` fewer."""
    rows = {}
    for name in names:
        method = made(name, keep)
        macs = cost.method_macs(sizes, method, selection_work(method, sizes).macs)
        rows[label(name)] = {part: 2 * count / 1e12 for part, count in macs.items()}
    frame = pd.DataFrame(rows).T
    frame["all parts"] = frame.sum(axis=1)
    full = frame.loc[label(WHOLE)]
    frame["times less, decoder"] = full["decoder"] / frame["decoder"]
    frame["times less, all parts"] = full["all parts"] / frame["all parts"]
    return frame


def layers(names: Sequence[str] = COMPARED, keep: int = KEEP, sizes: Architecture = LLAVA) -> pd.DataFrame:
    """Visual tokens in each decoder layer: method, label, layer, tokens."""
    rows = [
        (name, label(name), number, count)
        for name in names
        for number, count in enumerate(cost.visual_tokens(made(name, keep), sizes.tokens, sizes.layers))
    ]
    return pd.DataFrame(rows, columns=["method", "label", "layer", "tokens"])


def by_layer_table(
    names: Sequence[str] = COMPARED, keep: int = KEEP, sizes: Architecture = LLAVA
) -> pd.DataFrame:
    """Mean tokens a layer, prefill in both countings and key-value cache, one row a method."""
    rows = {}
    for name in names:
        visual = cost.visual_tokens(made(name, keep), sizes.tokens, sizes.layers)
        whole = [count + TEXT for count in visual]
        rows[label(name)] = {
            "tokens, mean": np.mean(visual),
            "tokens, last layer": visual[-1],
            "10^12 multiply-adds, visual only": cost.decoder_macs(sizes, visual) / 1e12,
            "10^12 multiply-adds, all tokens": cost.decoder_macs(sizes, whole) / 1e12,
            "cache MiB": cost.cache_bytes(sizes, whole) / 2**20,
        }
    return pd.DataFrame(rows).T.round({"tokens, mean": 1, "cache MiB": 0}).round(3)


def against_published() -> pd.DataFrame:
    """DeSAP's table 6 beside the formula: for our schedules that end with 64 tokens, and for a mean of 64 a layer."""
    printed = pd.read_csv(PUBLISHED / "desap_table6.csv").set_index("method")["tera_flops"]
    names = {"full": WHOLE, "SparseVLM": "sparsevlm", "HoloV": "holov", "DeSAP": "desap"}
    rows = []
    for title, name in names.items():
        ends = cost.visual_tokens(made(name, KEEP), LLAVA.tokens, LLAVA.layers)
        mean = ends
        if name == "sparsevlm":  # the only one of these whose layers differ
            mean = cost.visual_tokens(make(name, keep=17), LLAVA.tokens, LLAVA.layers)
        rows.append(
            (
                title,
                printed[title],
                cost.decoder_macs(LLAVA, ends) / 1e12,
                np.mean(ends),
                cost.decoder_macs(LLAVA, mean) / 1e12,
                np.mean(mean),
            )
        )
    columns = [
        "method",
        "printed, T",
        "formula, ends with 64",
        "mean tokens",
        "formula, mean near 64",
        "its mean tokens",
    ]
    return pd.DataFrame(rows, columns=columns).set_index("method").round(2)


def text_curve(most: int = 160) -> pd.DataFrame:
    """Saving of AdaptPrune's setting (a tenth kept, from layer 2 on) against the text tokens counted: sizes, text, saving."""
    rows = []
    for sizes in (LLAVA, NEXT):
        kept = sizes.tokens // 10
        for text in range(most + 1):
            table = countings(sizes, (sizes.tokens, kept), 2, text)
            rows.append((sizes.name, text, table["saving"].iloc[3]))
    return pd.DataFrame(rows, columns=["sizes", "text", "saving"])


def cache_table(budgets: Sequence[float] = (1, 1 / 3, 2 / 9, 1 / 9), batch: int = 32) -> pd.DataFrame:
    """Key-value cache after the prefill, 16-bit numbers: MiB an image and GiB a batch, by architecture and kept tokens."""
    rows = []
    for sizes in (LLAVA, NEXT, MISTRAL):
        for share in budgets:
            kept = round(sizes.tokens * share)
            held = cost.cache_bytes(sizes, [kept + TEXT] * sizes.layers)
            rows.append((sizes.name, kept, held / 2**20, batch * held / 2**30))
    columns = ["architecture", "visual tokens", "MiB an image", f"GiB, batch {batch}"]
    return pd.DataFrame(rows, columns=columns).round(1)


def counting_sentence() -> str:
    """Explain the paper's tenfold by what is counted."""
    table = countings(LLAVA, (576, KEEP))
    rows = table[table["kept"] == KEEP].set_index("counting")
    told = [f"{row.times:.2f} times ({row.saving:.0%} less) counting {name}" for name, row in rows.iterrows()]
    (tenfold,) = printed("D-11", "times fewer operations").values()
    found = "one of these counts" if (rows["times"].round() >= tenfold).any() else "none of them"
    return (
        f"**Answer.** From 576 to {KEEP} visual tokens LLaVA-1.5-7B's prefill falls {listing(told)}, with {TEXT} text "
        f"tokens where text counts; {found} comes to {tenfold:.0f}."
    )


def cue_sentence() -> str:
    """Hold this program's own text and vision cues against the pruned prefill, as D-17's last clause does with a formula."""
    cues = cost.cue_macs(LLAVA, make("desap", keep=KEEP))
    share = (cues["text tower"] + cues["vision cues"]) / cost.llava_macs(LLAVA.tokens, KEEP)
    return (
        f"As this repository computes them, DeSAP's text tower and second attention take {share:.1%} of the pruned prefill "
        "(visual tokens only): more than the formula's share, as the projections of one layer are computed anew."
    )


def met_at(curve: pd.DataFrame, printed: Mapping[str, float]) -> dict[str, int | None]:
    """Text tokens at which an architecture's saving comes down to the printed one; None where it never was as large."""
    found: dict[str, int | None] = {}
    for name, mine in curve.groupby("sizes", sort=False):
        above = mine.loc[mine["saving"] >= printed[name], "text"]
        found[name] = None if above.empty else int(above.max())
    return found


def text_sentence(curve: pd.DataFrame, printed: Mapping[str, float]) -> str:
    """Say which numbers of text tokens would give the printed savings."""
    told = []
    for name, text in met_at(curve, printed).items():
        best = curve.loc[curve["sizes"] == name, "saving"].max()
        reason = (
            f"lies above the {best:.1%} of no text at all"
            if text is None
            else f"holds up to {text} text tokens"
        )
        told.append(f"{name}'s printed {printed[name]:.0%} {reason}")
    return "; ".join(told) + "."


def part_sentence(table: pd.DataFrame) -> str:
    """Say what share of the work lies outside the decoder, before and after pruning."""
    shares = 1 - table["decoder"] / table["all parts"]
    own = table[["text tower", "vision cues", "decoder cues", "selection"]].sum(axis=1) / table["all parts"]
    return (
        f"Outside the decoder lies {shares.loc[label(WHOLE)]:.0%} of the unpruned work and "
        f"{shares.loc[label('desap')]:.0%} of what DeSAP leaves: tower and projector see every patch whatever is dropped. "
        f"Cues and choice together are at most {own.max():.1%} of a method's work ({own.idxmax()})."
    )


def countings(sizes: Architecture, budgets: Sequence[int], layer: int = 0, text: int = TEXT) -> pd.DataFrame:
    """Count the same pruning in the field's ways, one row a budget.

    Parameters
    ----------
    budgets
        Visual tokens kept; the first is the unpruned count.
    layer
        Decoder layers that still see everything.

    Returns
    -------
    DataFrame
        counting ("visual tokens only", "all tokens", "all tokens, tower and projector"), kept, tera (10^12
        multiply-adds), tera_flops (two a multiply-add), times (unpruned over pruned), saving (share).
    """
    outside = cost.tower_macs(sizes) + cost.projector_macs(sizes)
    ways = (
        ("visual tokens only", 0, 0.0),
        ("all tokens", text, 0.0),
        ("all tokens, tower and projector", text, outside),
    )
    rows = []
    for name, extra, more in ways:
        full = (
            cost.decoder_macs(sizes, cost.layer_tokens(sizes.layers, sizes.tokens, sizes.tokens, text=extra))
            + more
        )
        for kept in budgets:
            cut = layer if kept < sizes.tokens else 0
            macs = (
                cost.decoder_macs(sizes, cost.layer_tokens(sizes.layers, sizes.tokens, kept, cut, extra))
                + more
            )
            rows.append((name, kept, macs / 1e12, 2 * macs / 1e12, full / macs, 1 - macs / full))
    return pd.DataFrame(rows, columns=["counting", "kept", "tera", "tera_flops", "times", "saving"])


def selection_table(names: Sequence[str], keep: int, sizes: Architecture = LLAVA) -> pd.DataFrame:
    """List what each method's selection does on an image of an architecture, and on a batch of eight."""
    rows = []
    for name in names:
        method = make(name, keep=keep)
        one, eight = (selection_work(method, sizes, batch) for batch in (1, 8))
        rows.append(
            (look(name).label, one.macs / 1e9, one.operations, eight.operations, one.host_reads, one.uploads)
        )
    columns = [
        "method",
        "10^9 multiply-adds",
        "operations",
        "operations, batch 8",
        "host reads",
        "tables sent",
    ]
    return pd.DataFrame(rows, columns=columns).round({"10^9 multiply-adds": 3}).set_index("method")
