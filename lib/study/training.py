"""Train the embedded model from start to end, and read the record of such a run.

`train` needs about 75 minutes at scale 1 on two cores; what it leaves is a folder that loads as any checkpoint, with `training.json`.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.models import embedded
from lib.models.embedded import Sizes
from lib.study import records, train_decoder, train_tower
from lib.study.looks import BLUE, BROWN, GREEN, ORANGE, PURPLE, SKY
from lib.study.questions import words
from lib.study.scenes import SUITES, generate
from lib.study.tables import ALL, accuracy_table

CARD = "training.json"
KEYS = ("sizes", "tower", "decoder")
# The gate: unpruned accuracy at least this, blind at least this far below. A count and a whole picture need more than one place.
ACCURATE: Mapping[str, float] = MappingProxyType(
    {suite: 0.90 if suite in ("count", "scene") else 0.95 for suite in SUITES}
)
BLIND_GAP = 0.25
PROBED = 0.95  # what the linear probes of the tower were asked to reach before the decoder is trained
NO_LOSS, VALIDATION = ("step", "rate", "seconds"), "validation "  # what a curve's lines hold beside losses
_STYLES = dict(
    zip(SUITES, zip((BLUE, ORANGE, GREEN, PURPLE, BROWN, SKY), "osD^vP", strict=True), strict=True)
)


def train(folder: Path, scale: float = 1.0, seed: int = 0, probed: int = 500) -> Path:
    """Train tower and decoder, probe the tower, save the model; an interrupted call goes on where it stopped.

    Parameters
    ----------
    folder
        Gets `checkpoints/` and `model/`.
    scale
        Factor of all step counts; 1 is the shipped recipe.
    seed
        Of weights and pictures.
    probed
        Pictures that the linear probes learn from; half as many test them.

    Returns
    -------
    Path
        The folder of the finished model.

    Raises
    ------
    ValueError
        When `scale` is not positive, or `folder` holds checkpoints of another scale or seed.
    """
    if not scale > 0:
        raise ValueError(f"scale must be above 0, got {scale!r}")
    checkpoints, model_folder = folder / "checkpoints", folder / "model"
    _claim(checkpoints, {"scale": scale, "seed": seed})
    sizes, vocab, started = Sizes(), embedded.vocabulary(words()), time.time()
    clip = train_tower.train_tower(checkpoints, vocab, sizes, train_tower.curriculum(scale), seed)
    seen = generate(np.random.default_rng([seed, 5]), probed)
    unseen = generate(np.random.default_rng([seed, 6]), max(20, probed // 2), split="validation")
    probe = train_tower.probe(clip.vision_model, seen, unseen)
    model = train_decoder.train_decoder(
        checkpoints, clip, vocab, sizes, train_decoder.curriculum(scale), seed
    )
    card = {
        "tower": _part(checkpoints, "tower") | {"probe": probe},
        "decoder": _part(checkpoints, "decoder"),
        "hardware": f"{os.cpu_count()} CPU cores ({platform.machine()}), {torch.get_num_threads()} threads",
        "notes": [f"scale {scale}", f"last call took {time.time() - started:.0f} s"],
    }
    embedded.save(model_folder, model, clip, sizes, vocab, card)
    return model_folder


def _claim(checkpoints: Path, run: dict[str, float]) -> None:
    """Mark a checkpoint folder with what it is for; refuse one of another run."""
    checkpoints.mkdir(parents=True, exist_ok=True)
    mark = checkpoints / "run.json"
    if mark.exists() and (told := json.loads(mark.read_text())) != run:
        raise ValueError(
            f"{checkpoints} holds a run with {told}, asked for {run}; remove it or name another output"
        )
    mark.write_text(json.dumps(run))


def _part(checkpoints: Path, name: str) -> dict:
    """Seed, phases and curve of one half; a step logged twice by a resumed run counts once."""
    told = json.loads((checkpoints / f"{name}.json").read_text())
    lines = map(json.loads, (checkpoints / f"{name}.jsonl").read_text().splitlines())
    curve = {line["step"]: line for line in lines}
    return told | {"curve": [curve[step] for step in sorted(curve)]}


def read_card(folder: Path) -> dict:
    """Read a model's training record.

    Raises
    ------
    ValueError
        When it is absent or lacks a part.
    """
    path = folder / CARD
    if not path.is_file():
        raise ValueError(f"{folder.name}: no {CARD}; train the model with source live")
    card = json.loads(path.read_text(encoding="utf-8"))
    missing = [key for key in KEYS if key not in card]
    if missing:
        raise ValueError(f"{folder.name}/{CARD} lacks {', '.join(missing)}: an unfinished model")
    return card


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


def gate_records(folder: Path, seed: int = 0) -> pd.DataFrame:
    """Read the answers with all visual tokens and with none, as an accuracy table."""
    rows = records.read_folder(folder)
    return accuracy_table(rows[rows["arm"].isin(["none", "blind"])], seed)


def gate_table(table: pd.DataFrame) -> pd.DataFrame:
    """Judge the gate on the test split from the arms none and blind.

    Parameters
    ----------
    table
        `lib.study.tables.accuracy_table` with both arms. The mean over suites is held against the mean of what they ask.

    Raises
    ------
    ValueError
        When one of the arms has no record.
    """
    parts = {arm: table[table["method"] == arm].set_index("suite") for arm in ("none", "blind")}
    lacking = [arm for arm, part in parts.items() if part.empty]
    if lacking:
        raise ValueError(f"records have no arm {lacking[0]}, which the gate is judged on")
    rows = []
    for suite in [suite for suite in (*SUITES, ALL) if suite in parts["none"].index]:
        full, blind = parts["none"].loc[suite], parts["blind"].loc[suite]
        gap = full["accuracy"] - blind["accuracy"]
        asked = ACCURATE.get(suite, np.mean(list(ACCURATE.values())))
        met = full["accuracy"] >= asked and gap >= BLIND_GAP
        numbers = [full[name] for name in ("n", "accuracy", "low", "high")]
        rows.append((suite, *numbers, asked, blind["accuracy"], round(gap, 4), "met" if met else "not met"))
    names = ["suite", "n", "accuracy", "low", "high", "asked", "blind", "gap", "gate"]
    return pd.DataFrame(rows, columns=names).round(3)


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
