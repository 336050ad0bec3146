"""A checkout in a folder whose name holds a space, and a sweep whose name holds one."""

import re
import shutil
import subprocess
import sys

import pytest

from lib.paths import ROOT
from testkit.workspace import write_notebook

SWEEP = "notebooks:\n  tiny: {sets: {few: {output: data/runs/a folder}}}\n"


@pytest.fixture
def checkout(tmp_path):
    """What the graph of runs reads, in `a checkout`."""
    folder = tmp_path / "a checkout"
    shutil.copytree(ROOT / "lib", folder / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("notebooks", "data/sweeps"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("Snakefile", "data/claims.csv"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def _snakemake(folder, sweep, *more):
    words = [sys.executable, "-m", "snakemake", "--profile", "data/sweeps/profiles/local", "--cores", "1"]
    done = subprocess.run(
        [*words, "--config", f"sweep={sweep}", *more],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
def test_the_graph_runs_where_paths_hold_spaces(checkout, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)  # else another checkout's code would run
    status, said = _snakemake(checkout, "data/sweeps/study.yml", "--dry-run", "--printshellcmds")
    assert status == 0, said
    assert said.count("-m lib.study.run notebooks/") == len(list((checkout / "notebooks").glob("*.ipynb")))

    cell = "from lib.paths import places\n(places(output).tables / 'told').write_text(str(places(output).tables))"
    write_notebook(checkout / "notebooks/tiny.ipynb", cell)
    (checkout / "data/sweeps/my sweep.yml").write_text(SWEEP)
    status, said = _snakemake(checkout, "data/sweeps/my sweep.yml")
    assert status == 0, said
    assert (checkout / "data/runs/my sweep/notebooks/tiny--few.ipynb").is_file()
    tables = checkout / "data/runs/a folder/tables"
    assert (tables / "told").read_text() == str(tables)


@pytest.mark.parametrize("name", ["Makefile", ".github/workflows/ci.yml", ".ci/run"])
def test_programs_are_run_as_modules_as_scripts_hold_the_checkout_s_path(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert set(re.findall(r"(?:\.venv/bin|\$\(BIN\))/(\w+)", text)) <= {"python"}


def test_make_hands_a_model_s_path_over_whole():
    words = ["make", "-n", "live", "PYTHON=true", "MODEL=my models/a", "BENCHMARKS=gqa, pope"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert '"my models/a" --benchmarks "gqa, pope"' in done.stdout
