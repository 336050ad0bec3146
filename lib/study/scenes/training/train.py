"""Train the embedded model from start to end, and read the record of such a run.

`train` needs about 75 minutes at scale 1 on two cores; what it leaves is a folder that loads as any checkpoint, with `training.json`.
`python -m lib train --out FOLDER` does the same in calls of a few minutes, at either of two grids, on a GPU if asked.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.files import alone, whole
from lib.models import embedded
from lib.study import records
from lib.study.pages.looks import BLUE, BROWN, GREEN, ORANGE, PURPLE, SKY
from lib.study.scenes.layout import SUITES, generate
from lib.study.scenes.questions import words
from lib.study.scenes.training import train_decoder, train_tower
from lib.study.scenes.training.recipe import RECIPES, Recipe
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


def train(
    folder: Path,
    scale: float = 1.0,
    seed: int = 0,
    probed: int = 500,
    *,
    recipe: Recipe = RECIPES[12],
    device: str = "cpu",
    workers: int = 0,
    minutes: float = math.inf,
) -> Path:
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
    recipe
        Sizes, pictures and curricula.
    device
        "cpu" or "cuda". On the CPU an interrupted run ends in the same weights as one that was not; sums of a GPU come in
        no fixed order, so there they may differ in the last digits.
    workers
        Processes that draw pictures ahead; 0 draws in this one. They do not change what is drawn.
    minutes
        Time after which no further step is begun. The probes between tower and decoder are not cut short.

    Returns
    -------
    Path
        The folder of the finished model.

    Raises
    ------
    ValueError
        When `scale` or `minutes` is not positive, the device is not there, or `folder` holds checkpoints of another scale,
        seed or grid.
    Paused
        When `minutes` were over before the training; the same call goes on.
    BlockingIOError
        When another process trains in `folder`.
    """
    for name, value in (("scale", scale), ("minutes", minutes)):
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device 'cuda' was asked for, but torch {torch.__version__} sees no CUDA device")
    until = time.monotonic() + 60 * minutes
    checkpoints, model_folder = folder / "checkpoints", folder / "model"
    _claim(checkpoints, {"scale": scale, "seed": seed, "grid": recipe.sizes.grid})
    sizes, vocab = recipe.sizes, embedded.vocabulary(words())
    ways = {"frame": recipe.frame, "device": device, "workers": workers, "until": until}
    with alone(checkpoints / "lock", f"the training in {folder}"), _tensor_cores(device):
        clip = train_tower.train_tower(checkpoints, vocab, sizes, recipe.tower(scale), seed, **ways)
        probe = _probe(checkpoints, clip.vision_model, seed, probed, recipe)
        phases = recipe.decoder(scale)
        model = train_decoder.train_decoder(checkpoints, clip, vocab, sizes, phases, seed, **ways)
        spent = sum(_seconds(checkpoints / f"{half}.pt") for half in ("tower", "decoder"))
        card = {
            "tower": _part(checkpoints, "tower") | {"probe": probe["accuracy"]},
            "decoder": _part(checkpoints, "decoder"),
            "grid": sizes.grid,
            "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
            "torch": torch.__version__,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "hardware": _hardware(device),
            "notes": [f"scale {scale}"],
        }
        if not math.isnan(spent):  # older checkpoints kept no time
            card["minutes"] = round((spent + probe["seconds"]) / 60, 2)
            card["notes"].append(f"trained and probed in {card['minutes']:.1f} minutes over all calls")
        if device == "cuda":
            card["notes"].append("float32 with matrix products in TF32 (torch's matmul precision high)")
        embedded.save(model_folder, model.cpu(), clip.cpu(), sizes, vocab, card)
    return model_folder


@contextmanager
def _tensor_cores(device: str) -> Iterator[None]:
    """Let a GPU multiply float32 matrices in TF32 within the block; nothing on a CPU."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if device == "cuda" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _hardware(device: str) -> str:
    cores = f"{os.cpu_count()} CPU cores ({platform.machine()}), {torch.get_num_threads()} threads"
    return f"{torch.cuda.get_device_name()}; {cores}" if device == "cuda" else cores


def _probe(checkpoints: Path, vision, seed: int, probed: int, recipe: Recipe) -> dict:
    """Accuracies of the probes of the trained tower and their seconds; made once, then read."""
    file = checkpoints / "probe.json"
    told = json.loads(file.read_text()) if file.exists() else {}
    if told.get("pictures") != probed:
        started = time.time()
        seen = generate(np.random.default_rng([seed, 5]), probed, recipe.frame)
        rest = generate(np.random.default_rng([seed, 6]), max(20, probed // 2), recipe.frame, "validation")
        accuracy = train_tower.probe(vision, seen, rest)
        told = {"pictures": probed, "accuracy": accuracy, "seconds": round(time.time() - started, 1)}
        with whole(file) as part:
            part.write_text(json.dumps(told))
    return told


def _seconds(checkpoint: Path) -> float:
    """Training time that a checkpoint took, NaN where an older version wrote it."""
    return torch.load(checkpoint, weights_only=True, map_location="cpu").get("seconds", math.nan)


def _claim(checkpoints: Path, run: dict[str, float]) -> None:
    """Mark a checkpoint folder with what it is for; refuse one of another run."""
    mark = checkpoints / "run.json"
    if not mark.exists():
        with whole(mark) as part:
            part.write_text(json.dumps(run))
    told = {"grid": 12} | json.loads(mark.read_text())  # there was one grid before marks named it
    if told != {"grid": 12} | run:
        raise ValueError(
            f"{checkpoints} holds a run with {told}, asked for {run}; remove it or name another output"
        )


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
