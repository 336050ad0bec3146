"""Pruned models inside lmms-eval itself, offline: the real task files of POPE and GQA on pictures of Scenes.

Skipped where the extra `harness` is not installed. What needs no lmms-eval is in test_harness.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

from lib.models import hub
from lib.models.embedded import PROMPT
from lib.models.prune import prune
from lib.paths import MODEL
from lib.pruning.methods import make
from lib.study import metrics
from lib.study.scenes.layout import Layout
from lib.study.scenes.questions import benchmark

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("lmms_eval") is None, reason="lmms-eval is not installed (extra `harness`)"
    ),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # warnings of lmms-eval and what it imports
]

PICTURES = 12
INSTRUCTION = "\nAnswer the question using a single word or phrase."  # in both real task files
TASKS = {
    "pope_local": ("exists", INSTRUCTION),
    "gqa_local": ("attribute", INSTRUCTION),
    "bare": ("count", ""),
}
BARE = """
output_type: generate_until
doc_to_visual: !function bare.image
doc_to_text: !function bare.text
doc_to_target: answer
process_results: !function bare.results
metric_list: [{metric: accuracy, aggregation: mean, higher_is_better: true}]
generation_kwargs: {max_new_tokens: 4}
"""
BARE_CODE = """
def image(doc):
    return [doc["image"].convert("RGB")]


def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def results(doc, results):
    return {"accuracy": float(results[0] == doc["answer"])}
"""
ARMS = {
    "none": {},
    "desap": {"keep": 12},
    "trim": {"keep": 0.1},
    "random": {"keep": 12, "seed": 1},
    "adaptprune": {"keep": 12, "radius": 2.0},
    "pyramiddrop": {"keep": 12},
}


@pytest.fixture(scope="module")
def rows():
    """(picture, question, answer) of each task."""
    scenes, asked = benchmark("test", PICTURES, 5, Layout())
    return {
        task: [
            (Image.fromarray(scenes.images[row]), question.text, question.answer)
            for row, found in enumerate(asked)
            for question in found
            if question.suite == suite
        ]
        for task, (suite, _) in TASKS.items()
    }


@pytest.fixture(scope="module")
def folder(rows, tmp_path_factory):
    """Task files with their documents; the real ones are included, only the data are ours."""
    folder = tmp_path_factory.mktemp("tasks")
    real = Path(importlib.util.find_spec("lmms_eval").origin).parent / "tasks"
    heads = {
        "pope_local": f"include: {real}/pope/pope.yaml\n",
        "gqa_local": f"include: {real}/gqa/gqa.yaml\ndataset_name: null\nprocess_docs: null\n",
        "bare": BARE,
    }
    for task, found in rows.items():
        columns = {
            "question_id": list(map(str, range(len(found)))),
            "question": [question for _, question, _ in found],
            "answer": [answer for _, _, answer in found],
            "image": [as_png(picture) for picture, _, _ in found],
        }
        write_images(columns, folder / f"{task}.parquet")
        data = (
            f"{{data_files: {{test: {folder / task}.parquet}}, cache_dir: {folder / 'cache'}, token: false}}"
        )
        body = f"task: {task}\ndataset_path: parquet\ntest_split: test\ndataset_kwargs: {data}\n"
        (folder / f"{task}.yaml").write_text(heads[task] + body, encoding="utf-8")
    (folder / "bare.py").write_text(BARE_CODE, encoding="utf-8")
    return folder


def as_png(picture):
    file = BytesIO()
    picture.save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


def write_images(columns, path):
    from datasets import Dataset
    from datasets import Image as ImageColumn

    Dataset.from_dict(columns).cast_column("image", ImageColumn()).to_parquet(path)


@pytest.fixture(scope="module")
def loaded():
    return hub.load(MODEL)


def plain(loaded, method, rows, instruction):
    """Answers without the harness: `prune` and `generate`, one question at a time; None leaves the model alone."""
    answers = []
    for picture, question, _ in rows:
        prompt = PROMPT.format(question=question + instruction)
        inputs = loaded.processor(images=picture, text=prompt, return_tensors="pt")
        kwargs = {"max_new_tokens": 16, "do_sample": False}
        with torch.no_grad():
            if method is None:
                out = loaded.model.generate(**inputs, **kwargs)
            else:
                with prune(loaded.model, method, text=question, clip=loaded.clip):
                    out = loaded.model.generate(**inputs, **kwargs)
        new = out[0, inputs["input_ids"].shape[1] :]
        answers.append(loaded.processor.decode(new, skip_special_tokens=True).strip())
    return answers


@pytest.fixture(scope="module")
def manager(folder):
    from lmms_eval.tasks import TaskManager

    return TaskManager("ERROR", include_path=str(folder), include_defaults=False, model_name="hf_pruned")


def evaluate(manager, name, fields, batch):
    """Run all tasks in this process; answers of each task in the order of its documents, and the scores."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.models import get_model

    from lib.study.harness.lmms_model import PrunedCommand, PrunedModel

    assert get_model("hf_pruned") is PrunedCommand
    model = PrunedModel(str(MODEL), name, device="cpu", batch_size=batch, **fields)
    out = simple_evaluate(
        model=model,
        tasks=list(TASKS),
        task_manager=manager,
        batch_size=batch,
        device="cpu",
        bootstrap_iters=0,
    )
    return {task: answers_of(found) for task, found in out["samples"].items()}, out["results"]


def answers_of(samples):
    return [one["filtered_resps"][0] for one in sorted(samples, key=lambda one: one["doc_id"])]


@pytest.mark.parametrize("name", ARMS)
def test_answers_are_those_of_prune_and_generate(manager, rows, loaded, name):
    method = None if name == "none" else make(name, **ARMS[name])
    expected = {task: plain(loaded, method, rows[task], put) for task, (_, put) in TASKS.items()}
    for batch in (1, 4):
        said, _ = evaluate(manager, name, ARMS[name], batch)
        assert said == expected, batch
    assert (
        len({answer for answers in said.values() for answer in answers}) > 3
    )  # the model does say something


def test_scores_are_ours(manager, rows):
    said, results = evaluate(manager, "desap", {"keep": 12}, 5)
    ours = metrics.pope(said["pope_local"], [answer for _, _, answer in rows["pope_local"]])
    theirs = results["pope_local"]
    assert theirs["pope_f1_score,none"] == pytest.approx(ours["f1"])
    assert theirs["pope_accuracy,none"] == pytest.approx(ours["accuracy"])
    exact = metrics.exact_match(said["gqa_local"], [answer for _, _, answer in rows["gqa_local"]])
    assert results["gqa_local"]["exact_match,none"] == pytest.approx(sum(exact) / len(exact))


def command(folder, output, *arguments, tasks=tuple(TASKS)):
    words = [str(Path(sys.executable).with_name("lmms-eval")), "eval", "--model", "hf_pruned"]
    words += ["--model_args", ",".join((f"pretrained={MODEL}", *arguments)), "--tasks", ",".join(tasks)]
    words += ["--include_path", str(folder), "--batch_size", "4", "--device", "cpu"]
    words += ["--log_samples", "--output_path", str(output)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=offline, cwd=folder)


def test_command(folder, rows, loaded, tmp_path):
    done = command(folder, tmp_path, "method=desap", "keep=12", "positions=original", "saliency_layer=-2")
    assert done.returncode == 0, done.stderr
    method = make("desap", keep=12, positions="original", saliency_layer=-2)
    for task, (_, instruction) in TASKS.items():
        (path,) = tmp_path.rglob(f"*_samples_{task}.jsonl")
        samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        said = [one["filtered_resps"] for one in sorted(samples, key=lambda one: one["doc_id"])]
        assert said == plain(loaded, method, rows[task], instruction)
    (path,) = tmp_path.rglob("*_results.json")
    assert "method=desap,keep=12" in json.loads(path.read_text(encoding="utf-8"))["config"]["model_args"]


def test_command_ends_with_an_error_when_generation_fails(folder, tmp_path):
    done = command(folder, tmp_path, "method=cls", "keep=200", tasks=("pope_local",))
    assert done.returncode == 1
    assert done.stderr.strip().endswith(
        "hf_pruned: ValueError: keep=200 asks for 200 of 144 tokens; it must be 1 to 144"
    )
    assert "Traceback" in done.stderr
    assert not list(tmp_path.rglob("*_results.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method=desapp", "keep=3"], "name must be one of none, .*; got 'desapp'"),
        (["method=fastv", "keep=3", "sharp=2"], "fastv has no field sharp; known: keep, .*"),
    ],
)
def test_command_refuses_with_one_sentence(folder, tmp_path, arguments, message):
    done = command(folder, tmp_path, *arguments, tasks=("pope_local",))
    assert done.returncode == 1
    assert re.fullmatch(f"hf_pruned: ValueError: {message}", done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr


def request(task, messages):
    from lmms_eval.api.instance import Instance

    given = ("", lambda doc: messages, {"max_new_tokens": 2}, 7, task, "test")
    return Instance("generate_until", given, 0, {"task": task, "doc_id": 7, "repeats": 1})


def test_model_in_python_raises_what_happened(monkeypatch, tmp_path):
    from lib.study.harness.lmms_model import PrunedCommand, PrunedModel

    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        PrunedModel(str(tmp_path / "none"))
    with pytest.raises(SystemExit, match="hf_pruned: FileNotFoundError: no checkpoint folder"):
        PrunedCommand.create_from_arg_string(f"pretrained={tmp_path / 'none'}")
    for size in ("auto", 0, "2.5"):
        with pytest.raises(ValueError, match=f"batch_size must be a whole number above 0, got {size!r}"):
            PrunedModel(MODEL, batch_size=size)
    model = PrunedModel(MODEL, device="cpu")
    model.task_dict = {"two": {"test": {7: {}}}}
    texts = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    with pytest.raises(ValueError, match="document 7 of two: messages must hold one image and text, got "):
        model.generate_until([request("two", texts)])
    with pytest.raises(NotImplementedError, match="two has rounds"):
        model.generate_until_multi_round([request("two", texts)])
    with pytest.raises(NotImplementedError, match="two asks for likelihoods"):
        model.loglikelihood([request("two", texts)])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="WORLD_SIZE must be 1, got 2"):
        PrunedModel(MODEL)
