"""Where a benchmark's files lie on this machine; nothing is downloaded."""

from __future__ import annotations

import re
from pathlib import Path

from lib.study.harness.benchmarks import Benchmark


def files_of(of: Benchmark, data: Path | None = None) -> dict[str, list[Path]]:
    """Find the parquet files of a benchmark, pattern by pattern, without touching the network.

    Parameters
    ----------
    of : the benchmark.
    data : folder that holds `of.folder` with the repository's own layout; None looks into the local hub cache.

    Raises
    ------
    FileNotFoundError
        Naming the missing repository or files, and the command that fetches them.
    """
    if data is not None:
        root, remedy = (
            data / of.folder,
            f"run: {of.fetch} --local-dir {data / of.folder}" if of.repo else of.fetch,
        )
    elif not of.repo:
        raise FileNotFoundError(f"{of.name}: {of.fetch}")
    else:
        root, remedy = _snapshot(of), f"run: {of.fetch}"
    found = {pattern: sorted(root.glob(pattern)) for pattern in of.patterns}
    for pattern, paths in found.items():
        if not paths:
            raise FileNotFoundError(f"{of.repo or of.name}: no file {pattern} in {root}; {remedy}")
        parts = [re.search(r"-(\d{5})-of-(\d{5})\.parquet$", path.name) for path in paths]
        have = {int(part[1]) for part in parts if part}
        wanted = max((int(part[2]) for part in parts if part), default=0)
        if missing := sorted(set(range(wanted)) - have):
            raise FileNotFoundError(
                f"{of.repo or of.name}: part {missing[0]} of {wanted} of {pattern} is missing; {remedy}"
            )
    return found


def _snapshot(of: Benchmark) -> Path:
    from huggingface_hub import snapshot_download  # a third of a second, so only where the cache is asked
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(of.repo, repo_type="dataset", local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(f"{of.repo} is not in the local hub cache; run: {of.fetch}") from error
