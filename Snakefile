# One job a notebook, each through papermill behind the strict guard of lib.study.run.
# The sweep file says which notebooks run, with which parameters, and where their outputs go.
import glob
import os
import sys

import yaml

SWEEP = config.get("sweep", "data/sweeps/study.yml")
with open(SWEEP, encoding="utf-8") as handle:
    NOTEBOOKS = list(yaml.safe_load(handle)["notebooks"])
RUN = f"data/runs/{os.path.splitext(os.path.basename(SWEEP))[0]}/notebooks"
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


def needed(wildcards):
    return [f"{RUN}/{stem}.ipynb" for stem in NEEDS.get(wildcards.stem, []) if stem in NOTEBOOKS]


rule all:
    input:
        expand("{run}/{stem}.ipynb", run=RUN, stem=NOTEBOOKS),


rule notebook:
    input:
        notebook="notebooks/{stem}.ipynb",
        sweep=SWEEP,
        library=sorted(glob.glob("lib/**/*.py", recursive=True)),
        weights=sorted(WEIGHTS),
        register=ancient("data/claims.csv"),  # code fills its last columns, which makes nothing stale
        before=needed,
    output:
        f"{RUN}/{{stem}}.ipynb",
    threads: lambda wildcards: 2 if wildcards.stem in MEASURING else 1
    params:
        python=sys.executable,
    shell:
        "OMP_NUM_THREADS={threads} {params.python} -m lib.study.run {input.notebook} {output} -f {input.sweep}"
