"""The benchmarks' command line on the embedded model: whole, killed and resumed, short of files or memory."""

import copy
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from lib.models import hub
from lib.paths import MODEL, ROOT
from lib.pruning.methods import make
from lib.study import records
from lib.study.arms import Arm
from lib.study.harness import asking, journal, plan, prompts, scores, shards
from lib.study.harness.benchmarks import IMAGES, chosen
from lib.study.harness.data_files import files_of
from testkit import benchmark_files as files
from testkit.commands import command

KEEP = 16


@pytest.fixture(scope="module")
def loaded():
    return hub.load(MODEL)


@pytest.fixture(scope="module")
def checkpoint(loaded, tmp_path_factory):
    """The embedded model, saved anew as a hub repository holds it."""
    folder = tmp_path_factory.mktemp("hub") / "tiny-llava"
    loaded.model.save_pretrained(folder, max_shard_size="12MB")
    loaded.processor.save_pretrained(folder)
    (folder / "clip").symlink_to(MODEL / "clip")
    assert not list(folder.glob("*.bin"))
    return folder


@pytest.fixture(scope="module")
def some():
    return files.scenes(4)


@pytest.fixture(scope="module")
def data(some, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return folder, files.every(folder, some)


def ask(checkpoint, data, out, *words):
    return command("live", checkpoint, "--data", data, "--out", out, *words)


@pytest.fixture(scope="module")
def run(checkpoint, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    assert ask(checkpoint, data[0], out, "--methods", "desap", "--keep", KEEP, "--batch", 8).exit_code == 0
    return out


def test_every_benchmark_is_asked_and_scored(run, data):
    table = pd.read_csv(run / "benchmarks.csv", keep_default_na=False, na_values=[""])
    assert list(table.columns) == list(scores.COLUMNS)
    heads = table[~table["benchmark"].str.startswith("mean")].groupby(["benchmark", "method"]).head(1)
    assert set(heads["benchmark"]) == set(IMAGES)
    assert set(heads["method"]) == {"none", "desap"}
    for row in heads.itertuples():
        assert row.n == data[1][row.benchmark]
        assert row.tokens == (144 if row.method == "none" else KEEP)
        full = heads[(heads["benchmark"] == row.benchmark) & (heads["method"] == "none")]["score"].item()
        if full:
            assert row.retention == pytest.approx(100 * row.score / full, abs=0.02)
        else:
            assert pd.isna(row.retention)
    rotations = table[table["metric"] == "rotations"]["score"]
    assert (rotations == 2).all()
    assert set(table[table["benchmark"] == "pope"]["metric"]) >= {"f1", "accuracy", "yes_ratio", "f1_random"}
    assert set(table[table["benchmark"] == "mme"]["metric"]) == {"score", "perception", "cognition"}


def test_retention_is_the_mean_over_the_papers_benchmarks(run):
    table = pd.read_csv(run / "benchmarks.csv", keep_default_na=False, na_values=[""])
    for name, out in (
        ("mean", {"seed", "textvqa-plain"}),
        ("mean without vizwiz", {"seed", "textvqa-plain", "vizwiz"}),
    ):
        for method in ("none", "desap"):
            mine = table[table["method"] == method]
            ratios = mine[~mine["benchmark"].isin({*out, "mean", "mean without vizwiz"})][
                "retention"
            ].dropna()
            found = mine[mine["benchmark"] == name].iloc[0]
            assert found["n"] == len(ratios) >= 2
            assert found["retention"] == pytest.approx(ratios.mean(), abs=0.02)


def test_records_can_be_read_by_the_study(run, data):
    frame = records.read_folder(run / "records")
    assert len(frame) == 2 * sum(data[1].values())
    assert set(frame["model"]) == {"tiny-llava"}
    assert set(frame["suite"]) == set(IMAGES)
    told = records.read_provenance(next((run / "records").rglob("desap-k16.parquet")))
    assert (told["template"], told["dtype"], told["notes"]) == ("own", "float32", [])
    gqa = frame[(frame["suite"] == "gqa") & (frame["arm"] == "none")]
    assert gqa["correct"].mean() > 0.3  # one place of four, six colours: the model does see the pictures
    assert gqa["image_id"].nunique() == 4
    assert "Answer the question" not in " ".join(gqa["question"])
    full, pruned = (frame[frame["arm"] == arm]["prediction"].tolist() for arm in ("none", "desap"))
    assert full != pruned


def test_a_second_run_asks_nothing_again(run, checkpoint, data, monkeypatch):
    before = (run / "benchmarks.csv").read_bytes()
    monkeypatch.setattr(asking, "answers", None)
    assert ask(checkpoint, data[0], run, "--methods", "desap", "--keep", KEEP).exit_code == 0
    assert (run / "benchmarks.csv").read_bytes() == before


def test_killed_and_resumed_equals_uninterrupted(checkpoint, some, tmp_path):
    data, words = tmp_path / "data", ("--benchmarks", "gqa", "--methods", "cls", "--keep", KEEP, "--batch", 4)
    wanted = files.gqa(data, some * 3, files=3)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    called = [
        sys.executable,
        "-m",
        "lib",
        "live",
        checkpoint,
        "--data",
        data,
        "--out",
        broken,
        *words,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    grown = broken / "answers" / "gqa" / "none-kNone.jsonl"
    child = subprocess.Popen([*map(str, called)], env=environment, stderr=subprocess.DEVNULL)
    while child.poll() is None and (not grown.exists() or grown.read_bytes().count(b"\n") < 4):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert 3 <= len(files.lines(grown)) < len(wanted) / 4
    with grown.open("ab") as file:  # as if the kill had come in the middle of a line
        file.write(b'{"rows": [{"row": 99')
    assert ask(checkpoint, data, broken, *words).exit_code == 0
    assert ask(checkpoint, data, whole, *words).exit_code == 0
    for arm in ("none-kNone", "cls-k16"):
        name = f"answers/gqa/{arm}.jsonl"
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
        rows = [row["row"] for rows in files.lines(whole / name) for row in rows]
        assert rows == list(range(len(wanted)))
    assert (broken / "benchmarks.csv").read_bytes() == (whole / "benchmarks.csv").read_bytes()


def test_names_of_the_hub_are_found_in_its_cache(checkpoint, data, tmp_path, monkeypatch):
    from huggingface_hub import constants

    for kind, name, source in (
        ("models", "someone--tiny", checkpoint),
        ("datasets", "lmms-lab--POPE", data[0] / "POPE"),
    ):
        repo = tmp_path / f"{kind}--{name}"
        (repo / "snapshots").mkdir(parents=True)
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text("abc")
        (repo / "snapshots" / "abc").symlink_to(source)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    out = tmp_path / "out"
    words = ["someone/tiny", "--benchmarks", "pope", "--methods", "none", "--limit", "2", "--out", str(out)]
    assert command("live", *words).exit_code == 0
    assert set(pd.read_csv(out / "benchmarks.csv")["model"]) == {"someone/tiny"}


def test_an_interrupt_says_how_to_go_on(checkpoint, data, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(asking, "answers", interrupted)
    done = ask(checkpoint, data[0], tmp_path, "--benchmarks", "pope", "--methods", "none")
    assert done.exit_code == 130
    assert "the same command goes on" in done.stderr


def test_videos_are_read_as_eight_frames(some, tmp_path):
    frames = [image for image, _ in some] * 3  # 12 frames
    row = {"video_id": "v1", "question": "what is shown?", "answer": "ring", "frames": frames}
    files.write(tmp_path, "msvd", [row])
    of = chosen("msvd")[0]
    (put,) = asking.questions(of, files_of(of, tmp_path))
    assert put.media.shape == (8, 96, 96, 3)
    for taken, place in ((0, 0), (7, 11)):
        assert np.array_equal(put.media[taken], np.asarray(shards.picture(frames[place])))
    files.write(tmp_path, "msvd", [row | {"frames": []}])
    with pytest.raises(
        ValueError, match=r"msvd: test-00000-of-00001\.parquet row 0: the video has no frames"
    ):
        list(asking.questions(of, files_of(of, tmp_path)))


def session(loaded, **fields):
    return asking.Session(loaded=loaded, name="tiny", weights="w", **fields)


def test_memory_that_runs_out_halves_the_batch(loaded, data, tmp_path, monkeypatch):
    of = chosen("pope")[0]
    found, arm = files_of(of, data[0]), Arm(method=make("cls", keep=KEEP))
    asking.answer_all(session(loaded, batch=4), of, found, arm, tmp_path / "a")
    generate, sizes = loaded.model.generate, []

    def tight(**inputs):
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("no room")
        return generate(**inputs)

    monkeypatch.setattr(loaded.model, "generate", tight)
    asking.answer_all(session(loaded, batch=4), of, found, arm, tmp_path / "b")
    assert sizes == [4, 2, 2]
    plain, halved = (records.read_folder(tmp_path / name / "records") for name in "ab")
    assert plain.equals(halved)
    told = records.read_provenance(next((tmp_path / "b").rglob("*.parquet")))
    assert told["notes"] == ["batches of 2: memory ran out"]


def test_one_question_that_does_not_fit_is_an_error():
    def never(puts):
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(MemoryError, match="one question alone"):
        asking.halving(never, [None] * 3, 3)


def test_other_errors_are_not_taken_for_memory():
    def broken(puts):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        asking.halving(broken, [None], 1)


def test_nan_is_refused(data, tmp_path):
    loaded, of = hub.load(MODEL), chosen("pope")[0]
    with torch.no_grad():
        loaded.model.lm_head.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN; try another --dtype"):
        asking.answer_all(
            session(loaded), of, files_of(of, data[0]), Arm(method=make("none")), tmp_path, limit=2
        )


def test_a_limit_leaves_whole_groups_and_can_grow(loaded, data, tmp_path):
    of, arm = chosen("mme")[0], Arm(method=make("none"))
    found = files_of(of, data[0])
    for limit, scored in ((5, 4), (7, 6), (2, 2)):
        asking.answer_all(session(loaded), of, found, arm, tmp_path, limit)
        assert set(scores.scores(tmp_path, of, arm, limit)["n"]) == {scored}
        assert len(records.read_folder(tmp_path / "records")) == limit
    assert [row["row"] for rows in files.lines(journal.path_of(tmp_path, of, arm)) for row in rows] == [
        *range(7)
    ]
    with pytest.raises(ValueError, match="limit 1 leaves mme no group"):
        scores.scores(tmp_path, of, arm, 1)


def test_answers_of_another_model_are_not_mixed(loaded, data, tmp_path):
    of, arm = chosen("pope")[0], Arm(method=make("none"))
    asking.answer_all(session(loaded), of, files_of(of, data[0]), arm, tmp_path, limit=2)
    with pytest.raises(ValueError, match="made with another template; choose another --out"):
        asking.answer_all(
            session(loaded, template="vicuna"), of, files_of(of, data[0]), arm, tmp_path, limit=2
        )


def test_prompts(loaded):
    own = prompts.prompt_of(loaded.processor, "is it <image> red ?", "image", "own")
    assert own == "USER: <image> is it  red ? ASSISTANT:"  # as the embedded model was trained
    bare = copy.copy(loaded.processor)
    bare.chat_template = None
    assert prompts.prompt_of(bare, "red ?", "image", "own") == "USER: <image>\nred ? ASSISTANT:"
    vicuna = prompts.prompt_of(loaded.processor, "q", "image", "vicuna")
    assert vicuna.startswith(
        "A chat between a curious user and an artificial intelligence assistant. The assistant"
    )
    assert vicuna.endswith("polite answers to the user's questions. USER: <image>\nq ASSISTANT:")

    class Chatty:
        image_token, chat_template = "<image>", "a template"

        def apply_chat_template(self, messages, add_generation_prompt, tokenize):
            return json.dumps(messages)

    assert json.loads(prompts.prompt_of(Chatty(), "q", "image", "own")) == [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q"}]}
    ]
    with pytest.raises(ValueError, match="msvd: LlavaProcessor reads no video"):
        prompts.check_media(loaded, chosen("gqa,msvd"), "own")


@pytest.mark.parametrize("size", [(6, 3), (3, 6), (4, 4)])
def test_squares(size):
    image = np.asarray(prompts.squared(Image.new("RGB", size, "white"), (0.5, 0.25, 0.0)))
    side = max(size)
    assert image.shape == (side, side, 3)
    assert (image == 255).all(-1).sum() == size[0] * size[1]
    assert (image[side // 2, side // 2] == 255).all()
    assert image[0, 0].tolist() == ([255] * 3 if size[0] == size[1] else [127, 63, 0])


def test_squares_are_other_answers(loaded, data, tmp_path):
    of, arm = chosen("pope")[0], Arm(method=make("none"))
    found = files_of(of, data[0])
    asking.answer_all(session(loaded), of, found, arm, tmp_path, limit=1)
    with pytest.raises(ValueError, match="made with another square"):
        asking.answer_all(session(loaded, square=True), of, found, arm, tmp_path, limit=1)
    asking.answer_all(session(loaded, square=True), of, found, arm, tmp_path / "square", limit=1)


def test_what_is_missing_is_said_at_once():
    script = (
        "import sys\n"
        "from lib.commands import app\n"
        "try:\n    app(['live', 'nobody/nothing', '--benchmarks', 'gqa,pope'])\n"
        "except SystemExit as end:\n    assert end.code == 2\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(  # a download would be retried for 20 seconds
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=15,
    )
    for fetch in (
        "nobody/nothing is not in the local hub cache; run: hf download nobody/nothing",
        "run: hf download --repo-type dataset lmms-lab/GQA --include 'testdev_balanced_instructions/testdev-*.parquet' "
        "--include 'testdev_balanced_images/testdev-*.parquet'",
        "run: hf download --repo-type dataset lmms-lab/POPE --include 'data/test-*.parquet'",
        "`hf auth login`",
    ):
        assert fetch in done.stderr


def first(data, name):
    of = chosen(name)[0]
    return files_of(of, data)[of.files][0]


def spoil(path, change):
    rows = pq.read_table(path).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows), path)


def corrupt(path):
    path.write_bytes(path.read_bytes()[:-20])


def corrupt_inside(path):
    content = bytearray(path.read_bytes())
    content[50:400] = b"\0" * 350
    path.write_bytes(bytes(content))


def no_answer_column(path):
    spoil(path, lambda rows: [row.pop("answer") for row in rows])


def empty_question(path):
    spoil(path, lambda rows: rows[2].update(question="  "))


def no_picture(path):
    spoil(path, lambda rows: rows[1].update(image=None))


def torn_picture(path):
    spoil(path, lambda rows: rows[1].update(image={"bytes": b"\x89PNG nothing", "path": None}))


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (corrupt, "test-00000-of-00001.parquet is not a readable parquet file"),
        (corrupt_inside, "test-00000-of-00001.parquet is not a readable parquet file"),
        (no_answer_column, "test-00000-of-00001.parquet: column 'answer' is missing; the file has "),
        (empty_question, "pope: test-00000-of-00001.parquet row 2: question is empty"),
        (no_picture, "pope: test-00000-of-00001.parquet row 1: the picture is missing"),
        (torn_picture, "pope: test-00000-of-00001.parquet row 1: the picture cannot be decoded"),
    ],
)
def test_a_broken_file_is_one_clear_error(checkpoint, some, tmp_path, fault, told):
    rows = [
        {
            **{"question": found["exists"].text, "answer": found["exists"].answer, "image": image},
            **{"image_source": f"s{place}", "category": "random"},
        }
        for place, (image, found) in enumerate(some)
    ]
    files.write(tmp_path, "pope", rows)
    fault(first(tmp_path, "pope"))
    done = ask(checkpoint, tmp_path, tmp_path / "out", "--benchmarks", "pope", "--methods", "none")
    assert done.exit_code == 2
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert told in error


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--benchmarks", "gqa,gpa"], "benchmark 'gpa' is unknown; known: all, gqa, pope"),
        (["--benchmarks", "gqa,gqa"], "benchmark 'gqa' is asked for twice"),
        (["--benchmarks", "gqa", "--keep", "many"], "--keep must be counts or ratios, got 'many'"),
        (["--benchmarks", "gqa", "--keep", "0"], "--keep must be above 0"),
        (["--benchmarks", "gqa", "--batch", "0"], "--batch must be at least 1, got 0"),
        (["--benchmarks", "gqa", "--methods", "oracle"], "method oracle needs to know where the answer is"),
        (["--benchmarks", "gqa", "--methods", "dasep"], "'dasep'"),
        (["--benchmarks", "gqa", "--methods", "desap/share"], "must write fields as name=value, got 'share'"),
        (
            ["--benchmarks", "gqa", "--methods", "desap/keep=3"],
            "must not set keep, which has the flag --keep",
        ),
        (["--benchmarks", "gqa", "--methods", "desap/shape=1.0"], "shape"),
        (["--benchmarks", "msrvtt"], "msrvtt: no file data/test-*.parquet"),
    ],
)
def test_a_wrong_word_is_one_clear_error(data, tmp_path, words, told):
    done = ask(MODEL, data[0], tmp_path, *words)
    assert done.exit_code == 2
    errors = done.stderr.splitlines()
    assert len(errors) == 1
    assert told in errors[0]


def test_pickled_weights_are_refused(checkpoint, data, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    (folder / "pytorch_model.bin").write_bytes(b"x")
    done = ask(folder, data[0], tmp_path / "out", "--benchmarks", "gqa")
    assert done.exit_code == 2
    assert "model.safetensors missing" in done.stderr


def test_weights_are_told_apart(checkpoint, tmp_path):
    whole = asking.weights_of(checkpoint)
    blob = tmp_path / "blobs" / ("a1" * 32)
    blob.parent.mkdir()
    blob.write_bytes(b"x")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model.safetensors").symlink_to(blob)
    assert asking.weights_of(tmp_path / "snapshot") == "a1a1a1a1"
    assert len(whole) == 16


def test_make_passes_the_model_on():
    def made(*words):
        done = subprocess.run(
            ["make", "-n", "live", *words], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return done.stdout

    told = made(
        "MODEL=llava-hf/llava-1.5-7b-hf", "BENCHMARKS=gqa,pope", "ARGS=--keep 64,128 --template vicuna"
    )
    assert (
        '-m lib live "llava-hf/llava-1.5-7b-hf" --benchmarks "gqa,pope" --keep 64,128 --template vicuna'
        in told
    )
    assert "snakemake" not in told
    assert "sweep=data/sweeps/live.yml" in made()


def test_fields_of_a_method_are_typed():
    name, fields = plan.method_of("desap/share=1.0/merge=false/similarity=vanilla/saliency_layer=-2")
    method = make(name, keep=3, **dict(fields))
    assert (method.share, method.merge, method.similarity, method.saliency_layer) == (
        1.0,
        False,
        "vanilla",
        -2,
    )
    assert dict(plan.method_of("pyramiddrop/layers=[2,3]")[1]) == {"layers": (2, 3)}
