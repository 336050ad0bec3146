"""Run the model tests with the lowest and the newest versions that the table `[tool.versions]` of pyproject.toml names.

    PYTHONPATH=tests python -m testkit.versions [SET ...]

Each set of versions has an environment of its own below `.versions/`, made once and again when its requirements change; what a
set does not name is as in constraints.txt. `index` takes the newest that the package index has, whatever it is.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings it under its old name
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".versions"
BESIDES = (  # what tests/models and tests/pruning import besides; nothing that only notebooks or runs need
    "accelerate", "hypothesis", "matplotlib", "numpy", "packaging", "pandas", "peft", "pillow", "pyarrow", "pytest",
    "pytest-timeout", "pytest-xdist", "safetensors", "scikit-image", "scikit-learn", "scipy", "seaborn", "tabulate", "tqdm",
)  # fmt: skip
# Kernels for accelerators know neither transformers nor a model, and take as long as all the rest when interpreted.
TESTS = ("tests/models", "tests/pruning", "--ignore=tests/pruning/test_kernels.py")
INDEX = ("torch", "transformers")


def plain(requirement: str) -> str:
    """The name of the distribution that a requirement is about, as the package index compares names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


def requirements(pins: tuple[str, ...], constraints: str) -> tuple[list[str], list[str]]:
    """What to install for a set of `pins`, and the constraints that are left.

    A set decides about torch and transformers with all that they bring, so constraints on these are dropped.
    """
    free = {plain(pin) for pin in pins} | {"huggingface-hub", "tokenizers"}
    kept = [line for line in constraints.split() if plain(line) not in free]
    return [*pins, *BESIDES], kept


def environment(name: str, pins: tuple[str, ...], constraints: str) -> Path:
    """Make the environment of a set, unless it stands; return its interpreter."""
    folder = FOLDER / name
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    wanted, kept = requirements(pins, constraints)
    told = "\n".join([*wanted, "", *kept, ""])
    if name != "index" and stamp.exists() and stamp.read_text(encoding="utf-8") == told:
        return python
    print(f"== {name}: making {folder.relative_to(ROOT)}, {', '.join(pins)}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    limits = folder / "constraints.txt"
    limits.write_text("\n".join([*kept, ""]), encoding="utf-8")
    install = [str(python), "-I", "-m", "pip", "install", "--quiet", *wanted, "--constraint", str(limits)]
    subprocess.run(install, check=True)
    stamp.write_text(told, encoding="utf-8")
    return python


def run(python: Path, newer: bool) -> int:
    """Run the tests with an interpreter; `newer` lets versions beyond the tested one warn. Returns the exit status."""
    words = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "-n",
        "2",
        "--dist",
        "worksteal",
        "-p",
        "no:cacheprovider",
        *TESTS,
    ]
    if newer:
        words += ["-W", "default:transformers .* is newer than:UserWarning"]
    return subprocess.run(words, cwd=ROOT, check=False).returncode


def main(names: list[str]) -> int:
    """Test the named sets, all of the table without one; return the exit status."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["versions"]
    sets = {name: tuple(pins) for name, pins in table.items()} | {"index": INDEX}
    unknown = [name for name in names if name not in sets]
    if unknown:
        print(f"sets of versions are {', '.join(sets)}, got {', '.join(unknown)}", file=sys.stderr)
        return 2
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    told, failed = [], False
    for name in names or table:
        start = time.monotonic()
        python = environment(name, sets[name], constraints)
        made = time.monotonic()
        print(f"== {name}: {', '.join(sets[name])}", flush=True)
        status = run(python, newer=name == "index")
        failed |= status != 0
        spent = f"{made - start:.0f} s to make, {time.monotonic() - made:.0f} s to test"
        told.append(f"{name}: {'FAILED' if status else 'passed'}, {', '.join(sets[name])} ({spent})")
    print(*told, sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
