"""Whether a finished run still holds: what its notebook tells, in what it differs, what was cut short."""

import json
from pathlib import Path

from lib.files import cut_short
from lib.study.sweep import Run


def told(finished: Path) -> dict[str, object]:
    """What a finished notebook says of its run, or {} where there is none that does."""
    if not finished.is_file():
        return {}
    try:
        return json.loads(finished.read_text(encoding="utf-8"))["metadata"]["study_run"]
    except (ValueError, TypeError, KeyError):  # not one that the runner put there
        return {}


def changed(run: Run, finished: Path) -> list[str]:
    """In what a run differs from the one that a finished notebook tells of: cells, parameters, both or nothing."""
    found = told(finished)
    pairs = {"cells": ("notebook_sha256", run.cells), "parameters": ("parameters", dict(run.parameters))}
    return [what for what, (key, value) in pairs.items() if found.get(key) != value]


def broken(run: Run, finished: Path, root: Path) -> list[str]:
    """What a finished run cannot stand on: itself or records of its folder, cut short. Committed ones are git's to mend."""
    if not finished.exists():
        return []
    if not told(finished):
        return [f"{finished} is not a whole notebook of a run"]
    records = sorted((root / run.output / "records").rglob("*.parquet")) if run.output else []
    return [f"{path} was cut short" for path in records if cut_short(path)]
