"""Whether checks left the checkout as it was: `python tests/unchanged.py note`, the checks, `python tests/unchanged.py check`.

Compared is every file that git tracks or would track, so a checkout with changes of one's own can be checked, too.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTE = "data/runs/unchanged.json"  # below the checkout, ignored by git


def digests(root: Path) -> dict[str, str] | None:
    """Sha-256 of every file that git does not ignore, by its path; None outside a git checkout."""
    words = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(words, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    if done.returncode:
        return None
    paths = {name: root / name for name in sorted(set(done.stdout.decode().split("\0")) - {""})}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items() if path.is_file()
    }


def main(words: list[str], root: Path = ROOT) -> int:
    """Note or check; return the exit status: 0 nothing changed, 1 something did, 2 a wrong word."""
    if words not in (["note"], ["check"]):
        print(f"error: say note or check, got {' '.join(words) or 'nothing'}", file=sys.stderr)
        return 2
    found = digests(root)
    if found is None:
        print("not a git checkout: whether the checks changed files is not known")
        return 0
    note = root / NOTE
    if words == ["note"]:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(found), encoding="utf-8")
        return 0
    before = json.loads(note.read_text(encoding="utf-8"))
    changed = sorted(name for name in before.keys() | found.keys() if before.get(name) != found.get(name))
    if changed:
        print(
            "error: the checks changed files that git tracks or would track; tests write below data/runs alone:\n  "
            + "\n  ".join(changed),
            file=sys.stderr,
        )
        return 1
    print(f"the checks left all {len(found)} files as they were")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
