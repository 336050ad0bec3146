"""The order of the rooms of lib: which may import which, which modules stay light, and how long a file may be."""

import ast
import subprocess
import sys

import pytest

from lib.paths import ROOT

LIB = ROOT / "lib"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(LIB.rglob("*.py"))
}
# From the lowest room upwards; rooms of one line never import each other. A room is its longest name here.
ORDER = (
    ("lib.files", "lib.paths"),
    ("lib.pruning",),
    ("lib.models",),
    ("lib.study", "lib.study.parity"),
    ("lib.study.scenes", "lib.study.costs", "lib.study.harness"),
    ("lib.study.pages",),
    ("lib.commands",),
)
FLOOR = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}
TOGETHER = {frozenset({"lib.study", "lib.study.parity"}), frozenset({"lib.files", "lib.paths"})}
MOST = 300  # lines
HEAVY = ("torch", "transformers", "matplotlib", "seaborn", "IPython", "PIL")
# Words, statistics, formulas, registers, runners: what each may bring along of `HEAVY`, directly or not.
LIGHT = {
    "lib.files": (),
    "lib.models.architectures": (),
    "lib.models.checkpoints": (),
    "lib.paths": (),
    "lib.study.cards": (),
    "lib.study.claims": (),
    "lib.study.compare": ("torch",),  # asks a method where it prunes
    "lib.study.cost": (),
    "lib.study.evidence": (),
    "lib.study.factorial": (),
    "lib.study.metrics": (),
    "lib.study.pages.captions": (),
    "lib.study.pages.looks": ("matplotlib", "seaborn", "IPython", "PIL"),  # as seaborn does
    "lib.study.finished_runs": (),
    "lib.study.parameters": (),
    "lib.study.prepare": (),
    "lib.study.ranks": (),
    "lib.study.records": (),
    "lib.study.rounding": (),
    "lib.study.rules": (),
    "lib.study.run": (),
    "lib.study.stats": (),
    "lib.study.sweep": (),
    "lib.study.tables": (),
    "lib.study.wording": (),
}


def room_of(module):
    """The room that a module lies in: "" for the front door, `lib/__init__.py` and `lib/__main__.py`."""
    parts = module.split(".")
    names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((name for name in names if name in FLOOR), "")


def imported(module):
    """Modules of lib that a module imports anywhere in its code, a function's body included."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found = [name if (name := f"{base}.{alias.name}") in MODULES else base for alias in node.names]
        else:
            continue
        yield from (name for name in found if name.split(".")[0] == "lib")


def allowed(room, other):
    """Whether a module of one room may import one of the other."""
    return room == other or frozenset({room, other}) in TOGETHER or FLOOR[other] < FLOOR[room]


def test_the_order_tells_right_from_wrong():
    assert room_of("lib.study.scenes.training.train") == "lib.study.scenes"
    assert room_of("lib.study.claims") == "lib.study"
    assert allowed("lib.study.pages", "lib.pruning")
    assert allowed("lib.study", "lib.study.parity")
    assert not allowed("lib.study.scenes", "lib.study.costs")
    assert not allowed("lib.models", "lib.study")
    assert "lib.study.arms" in set(imported("lib.study.compare")) | set(imported("lib.study.scenes.seeds"))


def test_imports_go_one_way():
    wrong = {
        (module, other)
        for module in MODULES
        if room_of(module)  # the front door opens what lies below
        for other in imported(module)
        if not allowed(room_of(module), room_of(other))
    }
    assert not wrong


def test_no_file_is_long():
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert not {module for module, lines in lengths.items() if lines > MOST}


@pytest.mark.parametrize("module", LIGHT)
def test_a_light_module_stays_light(module):
    code = f"import sys, {module}; print(*({{*{HEAVY!r}}} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= set(LIGHT[module])
