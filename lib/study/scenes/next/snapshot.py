"""Carry a training between machines: its state in a few files that git can hold.

`python -m lib.study.scenes.next.snapshot save` writes what `data/runs/scenes24` holds into `data/training/scenes24`, `restore` puts it
back where the run's own checkpoints are not further. Weights stay float32. Of a half that is finished the optimizers' moments are
left out; of one in progress they are kept in bfloat16, so a restored training goes on nearly, not bitwise, as it would have.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from lib.files import whole
from lib.paths import DATA
from lib.study.scenes.next.train import RUNS

KEPT = DATA / "training" / "scenes24"
HALVES = ("tower", "shallow", "decoder")
PLAIN = ("step", "seconds")
COPIED = "model.vision_tower."  # in the decoder's checkpoint, the finished tower again


def save(run: Path, kept: Path, bare: bool = False) -> None:
    """Write the state of one seed's folder `run` into `kept`: a half in `HALF.safetensors` and `HALF.state.json`, and its texts.

    With `bare` the moments are left out of a half in progress too: at the start of a phase, whose rate rises from 0, they matter little.
    """
    kept.mkdir(parents=True, exist_ok=True)
    for half in HALVES:
        if (run / f"{half}.pt").exists():
            finished = bare or (run / f"{half}.json").exists()
            tensors, told = packed(torch.load(run / f"{half}.pt", weights_only=True), finished)
            with whole(kept / f"{half}.safetensors") as part:
                save_file(tensors, part)
            (kept / f"{half}.state.json").write_text(json.dumps(told) + "\n")
    for text in (*run.glob("*.jsonl"), *run.glob("*.json")):
        shutil.copyfile(text, kept / text.name)


def restore(kept: Path, run: Path) -> list[str]:
    """Write the checkpoints of `kept` into `run`, where `run` has none of a later step; returns what was written."""
    run.mkdir(parents=True, exist_ok=True)
    done = []
    for half in HALVES:
        if not (kept / f"{half}.safetensors").exists():
            continue
        told = json.loads((kept / f"{half}.state.json").read_text())
        checkpoint = run / f"{half}.pt"
        if checkpoint.exists() and torch.load(checkpoint, weights_only=True)["step"] >= told["step"]:
            continue
        state = unpacked(load_file(kept / f"{half}.safetensors"), told)
        if half != "tower":
            tower = torch.load(run / "tower.pt", weights_only=True)["clip"]
            seen = {
                name.removeprefix("vision_model."): value
                for name, value in tower.items()
                if name.startswith("vision_model.")
            }
            state["model"] |= {COPIED + name: value for name, value in seen.items()}
        with whole(checkpoint) as part:
            torch.save(state, part)
        for text in kept.glob(f"{half}.json*"):
            shutil.copyfile(text, run / text.name)
        done.append(half)
    if done and (kept / "probe.json").exists():
        shutil.copyfile(kept / "probe.json", run / "probe.json")
    return done


def packed(state: dict, finished: bool) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors of a checkpoint by dotted names, and the rest as JSON holds it."""
    modules = [name for name in state if isinstance(state[name], dict)]
    tensors = {
        f"{module}/{name}": value.contiguous()
        for module in modules
        for name, value in state[module].items()
        if not name.startswith(COPIED)
    }
    told = {name: state[name] for name in PLAIN} | {"modules": modules, "groups": []}
    for place, optimizer in enumerate(state["optimizers"]):
        told["groups"].append(optimizer["param_groups"])
        for index, moments in {} if finished else optimizer["state"].items():
            for name, value in moments.items():
                tensors[f"optimizers/{place}/{index}/{name}"] = value.bfloat16() if value.ndim else value
    if "recent" in state and not finished:
        tensors["recent"] = state["recent"]
    return tensors, told


def unpacked(tensors: dict[str, torch.Tensor], told: dict) -> dict:
    """The checkpoint that `packed` took apart, its moments float32 again; without the decoder's copy of the tower."""
    state = {name: told[name] for name in PLAIN} | {module: {} for module in told["modules"]}
    moments: list[dict] = [{} for _ in told["groups"]]
    for key, value in tensors.items():
        first, _, rest = key.partition("/")
        if first == "recent":
            state["recent"] = value
        elif first == "optimizers":
            place, index, name = rest.split("/")
            moments[int(place)].setdefault(int(index), {})[name] = value.float()
        else:
            state[first][rest] = value
    groups = zip(moments, told["groups"], strict=True)
    return state | {"optimizers": [{"state": some, "param_groups": group} for some, group in groups]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: every seed's folder there is."""
    made = argparse.ArgumentParser(prog="python -m lib.study.scenes.next.snapshot", description=__doc__)
    made.add_argument("way", choices=("save", "restore"))
    made.add_argument("--bare", action="store_true", help="save weights alone, also of a half in progress")
    given = made.parse_args(arguments)
    source, goal = (RUNS, KEPT) if given.way == "save" else (KEPT, RUNS)
    for folder in sorted(path for path in source.glob("*") if path.is_dir()):
        if given.way == "save":
            save(folder, goal / folder.name, given.bare)
            print(f"saved seed {folder.name}")
        else:
            done = restore(folder, goal / folder.name)
            print(f"seed {folder.name}: {', '.join(done) or 'nothing newer than what is there'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
