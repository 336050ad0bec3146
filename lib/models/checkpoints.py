"""Checkpoint folders on this machine: where they are and whether they are whole. Imports neither torch nor transformers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open

from lib.paths import MODEL, user_path


def locate(path_or_repo: str | Path) -> Path:
    """Folder of a complete checkpoint, without touching the network.

    Raises
    ------
    ValueError
        On ``~NAME`` of a user without a home folder here.
    OSError
        `FileNotFoundError` if there is nothing, or a file is missing; `OSError` if a weight file is cut
        short.
    """
    folder = user_path(path_or_repo)
    if folder.is_dir():
        check_files(folder, "copy the folder again")
        return folder
    name = str(path_or_repo)
    remedy = f"run: hf download {name}"
    if isinstance(path_or_repo, Path) or name.count("/") != 1 or name[0] in "./~":
        raise FileNotFoundError(f"no checkpoint folder at {name}")
    config = try_to_load_from_cache(name, "config.json")
    if not isinstance(config, str):
        raise FileNotFoundError(f"{name} is not in the local hub cache; {remedy}")
    folder = Path(config).parent
    check_files(folder, remedy)
    return folder


def check_files(folder: Path, remedy: str) -> None:
    """Refuse a folder without config.json, or with a weight file that is absent or not as long as its header says."""
    index = folder / "model.safetensors.index.json"
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"config.json is missing in {folder}; {remedy}")
    shards = ["model.safetensors"]
    if index.is_file():
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise FileNotFoundError(f"{', '.join(missing)} missing in {folder}; {remedy}")
    for shard in shards:
        try:
            with safe_open(folder / shard, framework="numpy"):
                pass  # its header is read, and held against the length of the file
        except SafetensorError as error:
            actual = (folder / shard).stat().st_size
            raise OSError(f"{shard} in {folder} is damaged: {actual} bytes, {error}; {remedy}") from error


def weights_digest(folder: Path = MODEL) -> str:
    """Sha-256 over the model's weight files: which model a record was made with."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        if "checkpoints" not in path.parts:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
