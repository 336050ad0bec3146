"""Ask a model of the hub, or of a folder, the papers' benchmarks under pruning, and tell what it keeps of its scores.

The command is `python -m lib live MODEL --benchmarks gqa,pope --methods desap --keep 192,128,64`. Nothing is downloaded
(`lib.study.harness.plan`); a run that was interrupted goes on where it stopped when it is started again. Weights are read
from safetensors only and no code of a repository is run.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers.utils import logging

from lib.models.hub import load
from lib.pruning.methods import make
from lib.study.arms import Arm
from lib.study.harness import asking, prompts, scores, shards
from lib.study.harness.plan import Plan
from lib.study.tables import write_table

ALONE = ("none", "blind")  # methods without a budget


def carry_out(plan: Plan) -> Path:
    """Ask everything that is planned and write the table; where it lies.

    Raises
    ------
    ValueError, OSError
        Naming the method, file or row that cannot be used.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    arms = [Arm(method=make(name, **dict(fields))) for name, fields in plan.methods if name in ALONE]
    for name, fields in plan.methods:
        if name in ALONE:
            continue
        seed = {"seed": plan.seed} if "seed" in _fields(make(name, keep=1, **dict(fields))) else {}
        arms += [Arm(method=make(name, keep=keep, **dict(fields), **seed)) for keep in plan.budgets]
    needs = {arm.method.name: arm.method.needs() for arm in arms}
    if blind := [name for name, need in needs.items() if need.evidence]:
        raise ValueError(
            f"method {blind[0]} needs to know where the answer is, which these benchmarks do not tell"
        )
    for of, files in zip(plan.benchmarks, plan.files, strict=True):
        shards.count(files[of.files], of.columns, of.where)
        if of.pictures:
            shards.count(files[of.pictures[0]], of.pictures[1:])
    reads = any(need.text or need.patches is not None for need in needs.values())
    device = ("cuda" if torch.cuda.is_available() else "cpu") if plan.device == "auto" else plan.device
    stored = None if device != "cpu" else torch.float32
    dtype = stored if plan.dtype == "auto" else getattr(torch, plan.dtype)
    loaded = load(plan.folder, clip=plan.clip if reads and plan.clip else None, dtype=dtype, device=device)
    prompts.check_media(loaded, plan.benchmarks, plan.template)
    session = asking.Session(
        loaded=loaded,
        name=plan.name,
        weights=asking.weights_of(plan.folder),
        template=plan.template,
        square=plan.square,
        batch=plan.batch,
    )
    for of, files in zip(plan.benchmarks, plan.files, strict=True):
        for arm in arms:
            asking.answer_all(session, of, files, arm, plan.out, plan.limit)
    found = scores.table(plan.out, plan.benchmarks, arms, plan.limit)
    print(found.to_string(index=False, na_rep=""))
    return write_table(found, plan.out / "benchmarks.csv")


def _fields(method: object) -> tuple[str, ...]:
    return tuple(type(method).__dataclass_fields__)
