"""List the checksums of recorded files beside them, and name every file that is not as listed."""

import hashlib
from pathlib import Path
from typing import NamedTuple

MANIFEST = "SHA256SUMS"
CHECKED = ("data/records", "data/seeds")  # folders whose every file is in a manifest


class Difference(NamedTuple):
    """One place where the committed file and the recomputed one disagree."""

    file: str  # relative to the repository
    row: str
    column: str
    committed: str
    recomputed: str

    def __str__(self) -> str:
        place = ", ".join(part for part in (self.file, self.row, self.column) if part)
        return f"{place}: committed {self.committed!r}, recomputed {self.recomputed!r}"


def checksums(folder: Path) -> dict[str, str]:
    """Return the sha-256 of every file below a folder, by its path there; the manifest itself is left out."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


def write_manifest(folder: Path) -> Path:
    """Write the manifest in the format of ``sha256sum``, which can check it, too."""
    path = folder / MANIFEST
    lines = [f"{digest}  {name}\n" for name, digest in checksums(folder).items()]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")
    return path


def read_manifest(folder: Path) -> dict[str, str]:
    """Read a manifest; ValueError where it is absent or a line is none of ``sha256sum``'s."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(
            f"{MANIFEST} does not exist in {folder.name}; write it: python -m lib verify --write-manifest"
        )
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name:
            raise ValueError(f"{MANIFEST} holds the line {line!r}, which is no checksum and path")
        found[name] = digest
    return found


def compare_manifest(folder: Path, shown: str) -> list[Difference]:
    """Compare the files below a folder with its manifest; `shown` is the folder's name in messages."""
    told, found = read_manifest(folder), checksums(folder)
    return [
        Difference(f"{shown}/{name}", "", "sha256", told.get(name, "not listed"), found.get(name, "no file"))
        for name in sorted(told.keys() | found.keys())
        if told.get(name) != found.get(name)
    ]
