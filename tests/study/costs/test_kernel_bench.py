"""The benchmark of the kernels, as far as it goes without a device."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig

from lib.pruning.suppression import adaptive_nms
from lib.study.costs import kernel_bench, timing
from testkit.commands import command


def called(call, *_):
    call()
    return timing.summary([1.0, 2.0, 3.0])


def small(monkeypatch):
    monkeypatch.setattr(kernel_bench, "SIZES", (((4, 6), 5), ((1, 9), 9)))
    monkeypatch.setattr(kernel_bench, "BATCHES", (1, 2))
    reader = LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
    monkeypatch.setattr(kernel_bench, "READER", reader)
    monkeypatch.setattr(kernel_bench, "timed", called)


def test_read_back_loop_picks_the_same():
    scores, keys = kernel_bench.example((12, 12), 2, 64, torch.float32, "cpu")
    picked = kernel_bench.read_back(scores, keys, (12, 12), 30)
    assert picked.tolist() == adaptive_nms(scores, keys, (12, 12), 30, order="picked").tolist()


def test_every_line_of_the_selection(monkeypatch):
    small(monkeypatch)
    lines = kernel_bench.time_selection(50, "cpu")
    assert [line["path"] for line in lines] == 8 * ["torch", "read back"]  # a CPU runs no kernel
    assert all(line["same_picks"] == 1.0 for line in lines)
    assert all(line["q1_ms"] <= line["median_ms"] <= line["q3_ms"] for line in lines)


def test_every_line_of_the_prefill(monkeypatch):
    small(monkeypatch)
    lines = kernel_bench.time_prefill(50, "cpu")
    parts = ["prefill", "attention row", "keys", "cues and selection"]
    assert [line["what"] for line in lines] == 2 * parts
    assert all(line["share_of_prefill"] == 1.0 for line in lines if line["what"] != "prefill")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device to time")
def test_it_refuses_without_a_device(tmp_path):
    done = command("kernel-bench", "--out", tmp_path / "a.csv")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [[], ["--out", "no/such/folder.csv"], ["--out", "a.csv", "--repeats", "1"]])
def test_bad_arguments_are_refused(words):
    done = command("kernel-bench", *words)
    assert done.exit_code == 2
    assert "--" in done.stderr


@pytest.mark.gpu
def test_a_short_run_on_a_device(monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_bench, "BATCHES", (1,))
    assert command("kernel-bench", "--out", tmp_path / "a.csv", "--repeats", 3, "--no-prefill").exit_code == 0
    assert "kernel" in (tmp_path / "a.csv").read_text()
