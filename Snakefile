# One job a run: a notebook with one set of parameters, through papermill behind the strict guard of lib.study.run.
# The sweep file says which notebooks run, with which parameters, and where their outputs go (grammar: lib/study/sweep.py).
#
# A run is done again when its parameters, the code in its notebook's cells, anything in lib/ or the weights changed since,
# when a run before it was done again, or when a record in its folder was cut short. A notebook of which only outputs or
# prose changed is not stale: the finished copy holds a hash of the code cells it ran.
import glob
import json
import os
import re
import sys
from contextlib import ExitStack
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, workflow.basedir)  # the code beside this file, wherever Snakemake is called from
from lib.paths import user_path
from lib import files
from lib.study import finished_runs, sweep

PYTHON = sys.executable
try:
    SWEEP = str(user_path(config.get("sweep", "data/sweeps/study.yml")))
    BASE = f"data/runs/{os.path.splitext(os.path.basename(SWEEP))[0]}"
    RUNS = {run.name: run for run in sweep.read_runs(Path(SWEEP), Path("notebooks"))}
except ValueError as error:
    raise WorkflowError(str(error)) from None
# Notebooks reuse the baselines that DeSAP's notebook records; the verdicts read all claims' records.
NEEDS = {
    "21_adaptprune_claims": ["11_desap_claims"],
    "30_cues": ["11_desap_claims", "21_adaptprune_claims"],
    "31_head_to_head": ["11_desap_claims", "30_cues"],
    "32_multi_turn": ["11_desap_claims", "21_adaptprune_claims", "31_head_to_head"],
    "90_verdicts": ["11_desap_claims", "21_adaptprune_claims"],
}
MEASURING = {"11_desap_claims", "21_adaptprune_claims", "30_cues", "31_head_to_head", "32_multi_turn", "41_latency", "80_train_scenes"}  # these use both cores
WEIGHTS = [path for path in glob.glob("data/models/**/*.safetensors", recursive=True) if "checkpoints" not in path]


def finished(name):
    return f"{BASE}/notebooks/{name}.ipynb"


def unless_same(path, what):
    """An input whose date counts only if what it says differs from what the finished notebook ran."""

    def found(wildcards):
        return path(wildcards) if what in finished_runs.changed(RUNS[wildcards.run], Path(finished(wildcards.run))) else ancient(path(wildcards))

    return found


def asked(name, default):
    """What the sweep's `jobs` asks for a run, else the default."""

    def found(wildcards):
        run = RUNS[wildcards.run]
        value = getattr(run.job, name)
        return default(run) if value is None else value

    return found


if workflow.is_main_process:  # a job on a cluster reads this file too, and has its one target
    for name, run in RUNS.items():
        for what in finished_runs.broken(run, Path(finished(name)), Path(".")):
            print(f"{what}: {finished(name)} is done again", file=sys.stderr)
            if not workflow.output_settings.dryrun:
                Path(finished(name)).unlink(missing_ok=True)
LOCKS = ExitStack()


onstart:
    # Held until this process ends, however it ends: a killed sweep leaves nothing to unlock.
    try:
        for folder in sorted({Path(place).resolve() for place in (BASE, *(run.output or "data/runs/committed" for run in RUNS.values()))}):
            LOCKS.enter_context(files.alone(folder / "sweep.lock", f"{folder}, where sweep {SWEEP} writes,"))
    except OSError as error:
        LOCKS.close()
        raise WorkflowError(str(error)) from None


onsuccess:
    LOCKS.close()


onerror:
    LOCKS.close()


wildcard_constraints:
    run="|".join(map(re.escape, RUNS)),


rule all:
    input:
        [finished(name) for name in RUNS],
    message:
        "the sweep is done"


rule notebook:
    input:
        notebook=unless_same(lambda wildcards: f"notebooks/{RUNS[wildcards.run].notebook}.ipynb", "cells"),
        sweep=unless_same(lambda wildcards: SWEEP, "parameters"),
        library=sorted(glob.glob("lib/**/*.py", recursive=True)),
        weights=sorted(WEIGHTS),
        register=ancient("data/claims.csv"),  # code fills its last columns, which makes nothing stale
        before=lambda wildcards: [finished(run.name) for run in sweep.before(RUNS[wildcards.run], list(RUNS.values()), NEEDS)],
    output:
        f"{BASE}/notebooks/{{run}}.ipynb",
    params:
        cells=lambda wildcards: RUNS[wildcards.run].cells,
        parameters=lambda wildcards: json.dumps(RUNS[wildcards.run].parameters, sort_keys=True),
        chosen=lambda wildcards: ["--set", RUNS[wildcards.run].set] if RUNS[wildcards.run].set else [],
    threads: asked("threads", lambda run: 2 if run.notebook in MEASURING else 1)
    resources:
        mem_mb=asked("mem_mb", lambda run: 4000 if run.notebook in MEASURING else 3000),
        runtime=asked("runtime", lambda run: 720 if run.notebook in MEASURING else 60),
        gpu=asked("gpu", lambda run: 0),
    message:
        "{output}: {input.notebook} with {params.parameters}"
    shell:
        "OMP_NUM_THREADS={threads} {PYTHON:q} -m lib.study.run {input.notebook:q} {output:q} -f {input.sweep:q} {params.chosen:q}"
