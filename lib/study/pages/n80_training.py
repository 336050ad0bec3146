"""Tell and draw how the embedded model was trained, and whether it passes its gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.study.pages.looks import BLUE, BROWN, GREEN, ORANGE, PURPLE, SKY
from lib.study.scenes.gate import ACCURATE, BLIND_GAP, PROBED
from lib.study.scenes.layout import SUITES
from lib.study.tables import ALL

NO_LOSS, VALIDATION = ("step", "rate", "seconds"), "validation "  # what a curve's lines hold beside losses
_STYLES = dict(
    zip(SUITES, zip((BLUE, ORANGE, GREEN, PURPLE, BROWN, SKY), "osD^vP", strict=True), strict=True)
)


def phase_table(card: Mapping) -> pd.DataFrame:
    """List the stretches of both curricula: part, phase, steps, batch, peak rate."""
    rows = []
    for part in ("tower", "decoder"):
        for place, phase in enumerate(card[part]["phases"], 1):
            rows.append((part, place, phase["steps"], phase["batch"], phase["rate"]))
    return pd.DataFrame(rows, columns=["part", "phase", "steps", "batch", "peak rate"])


def probe_table(card: Mapping) -> pd.DataFrame:
    """List the probes' accuracies against what was asked of them; empty where none is recorded."""
    probe = card["tower"].get("probe") or {}
    flat = next(iter(probe.values())) if any(isinstance(v, Mapping) for v in probe.values()) else probe
    rows = [(name, round(value, 3), value >= PROBED) for name, value in flat.items()]
    table = pd.DataFrame(rows, columns=["attribute", "linear probe", "met"])
    return table.assign(met=table["met"].map({True: "met", False: "not met"}))


def gate_sentence(gate: pd.DataFrame) -> str:
    """Say how many suites meet the gate, and which do not."""
    suites = gate[gate["suite"] != ALL]
    missed = suites.loc[suites["gate"] != "met", "suite"].tolist()
    least = " or ".join(f"{asked:.2f}" for asked in sorted(set(ACCURATE.values()), reverse=True))
    told = f"The gate (accuracy at least {least} by suite, blind at least {BLIND_GAP:.2f} below) is met on "
    told += f"{len(suites) - len(missed)} of {len(suites)} suites"
    return f"**Answer.** {told}{'; not met: ' + ', '.join(missed) if missed else ''}."


def gate_caption(gate: pd.DataFrame) -> str:
    """Describe the figure of the gate."""
    least, most = int(gate.loc[gate["suite"] != ALL, "n"].min()), int(gate["n"].max())
    return (
        f"*Accuracy on the test split with all visual tokens (dots) and with none (crosses), {least} "
        f"questions or more a suite and {most:,} in all; 95 % intervals, bootstrap over pictures. Black "
        "lines: the accuracy asked for. Orange: the height that a cross may not exceed.*"
    )


def recipe_sentence(card: Mapping) -> str:
    """Say with what the shipped weights were made: sizes, seeds, steps, hardware, notes."""
    sizes, told = card["sizes"], []
    side = sizes["image"] // sizes["patch"]
    told.append(
        f"Pictures of {sizes['image']} pixels a side in patches of {sizes['patch']} give {side} x {side} "
        f"visual tokens; vision tower of {sizes['vision_layers']} layers and width {sizes['vision_width']}, "
        f"decoder of {sizes['layers']} layers and width {sizes['width']}."
    )
    for part in ("tower", "decoder"):
        curve = card[part]["curve"]
        told.append(f"The {part} (seed {card[part]['seed']}) was trained for {curve[-1]['step']:,} steps.")
    told += [f"Hardware: {card['hardware']}."] if "hardware" in card else []
    told += [f"{str(note)[:1].upper()}{str(note)[1:].rstrip('.')}." for note in card.get("notes", [])]
    return " ".join(told)


def curve_caption(card: Mapping) -> str:
    """Describe the figure of the curves, with its last losses."""
    last = [
        f"{part} {name} {value:.2f}"
        for part in ("tower", "decoder")
        for name, value in card[part]["curve"][-1].items()
        if name not in NO_LOSS and not name.startswith(VALIDATION)
    ]
    return (
        f"*Means over the steps since the last point. Last losses: {', '.join(last)}. Dotted lines part "
        "the phases; a new phase brings harder pictures, so a loss may rise there. Validation pictures share "
        "neither photographs nor digits with training.*"
    )


def curve_frame(card: Mapping) -> pd.DataFrame:
    """Gather all curves in long form: part, step, quantity, value."""
    parts = []
    for part in ("tower", "decoder"):
        wide = pd.DataFrame(card[part]["curve"]).drop(columns=list(NO_LOSS[1:]), errors="ignore")
        parts.append(wide.melt("step", var_name="quantity").dropna().assign(part=part))
    return pd.concat(parts, ignore_index=True)[["part", "step", "quantity", "value"]]


def draw_curves(card: Mapping, frame: pd.DataFrame) -> Figure:
    """Draw the losses of tower and decoder and the decoder's validation accuracy a suite."""
    figure, axes = plt.subplots(1, 3, figsize=(11.6, 3.6), layout="constrained")
    for ax, part in zip(axes, ("tower", "decoder"), strict=False):
        mine = frame[(frame["part"] == part) & ~frame["quantity"].str.startswith(VALIDATION)]
        names = dict.fromkeys(mine["quantity"])
        looks = zip((BLUE, ORANGE, GREEN), "os^", strict=True)
        styles = {name: (name, *look) for name, look in zip(names, looks, strict=False)}
        _lines(ax, mine, styles, card[part]["phases"])
        ax.set(title=f"{part}: training loss", yscale="log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
    axes[0].set_ylabel("loss (log scale, lower is better)")
    validation = {f"{VALIDATION}{suite}": (suite, *_STYLES[suite]) for suite in SUITES}
    _lines(axes[2], frame[frame["part"] == "decoder"], validation, card["decoder"]["phases"])
    for asked in sorted(set(ACCURATE.values())):
        axes[2].axhline(asked, color="0.15", linewidth=1.1, linestyle=(0, (4, 2)))
    axes[2].set(title="validation accuracy (dashed: the gate)", ylim=(0, 1.02))
    axes[2].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def _lines(ax: Axes, frame: pd.DataFrame, styles: Mapping, phases: Sequence[Mapping]) -> None:
    for name, (label, colour, marker) in styles.items():
        mine = frame[frame["quantity"] == name].sort_values("step")
        every = max(1, len(mine) // 12)
        ax.plot(
            mine["step"],
            mine["value"],
            color=colour,
            marker=marker,
            markevery=every,
            markersize=5,
            label=label,
        )
    for end in np.cumsum([phase["steps"] for phase in phases])[:-1]:
        ax.axvline(end, color="0.6", linewidth=1, linestyle=(0, (1, 2)))
    ax.set_xlabel("step (dotted: next phase)")
    if len(styles) > 1:
        ax.legend(frameon=False)
    sns.despine(ax=ax)


def draw_gate(gate: pd.DataFrame) -> Figure:
    """Draw unpruned and blind accuracy a suite beside what the gate asks for."""
    figure, ax = plt.subplots(figsize=(7.4, 3.8), layout="constrained")
    places = np.arange(len(gate))
    errors = np.abs(gate[["low", "high"]].to_numpy().T - gate["accuracy"].to_numpy())
    ax.errorbar(
        places,
        gate["accuracy"],
        yerr=errors,
        fmt="o",
        color=BLUE,
        capsize=3,
        markersize=7,
        label="all tokens",
    )
    ax.scatter(places, gate["blind"], marker="x", s=50, color="0.35", label="no visual token")
    ax.plot(
        places, gate["accuracy"] - BLIND_GAP, "_", color=ORANGE, markersize=22, label="blind may not exceed"
    )
    ax.plot(places, gate["asked"], "_", color="0.15", markersize=22, label="accuracy asked for")
    ax.set_xticks(places, [f"{suite}\n{met}" for suite, met in zip(gate["suite"], gate["gate"], strict=True)])
    ax.set(ylabel="accuracy on the test split", ylim=(-0.02, 1.04))
    ax.set_title("does the embedded model see?")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    sns.despine(ax=ax)
    return figure
