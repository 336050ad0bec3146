"""The one command: its list, its defaults, and how it ends."""

import inspect
import re
import subprocess
import sys

import pandas as pd
import pytest
from typer.main import get_command

from lib.commands import RESUMED, app
from lib.paths import ROOT
from lib.study.costs import half_precision, record_cost, selection_speed
from lib.study.pages import explorer
from lib.study.parity import table as parity
from lib.study.scenes import seeds
from lib.study.scenes.training import train
from testkit.commands import command

COMMANDS = get_command(app).commands


def test_help_lists_every_command_with_a_whole_line_and_loads_nothing_heavy():
    script = (
        "import sys\nsys.argv = ['lib', '--help']\ntry:\n    import lib.__main__\nexcept SystemExit as end:\n"
        "    assert not end.code\nheavy = {'torch', 'transformers', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    listed = dict(re.findall(r"^  ([a-z-]+)  +(\S.*)$", done.stdout.split("Commands:")[1], flags=re.M))
    assert list(listed) == list(COMMANDS)
    assert all(line.endswith(".") and not line.endswith("...") for line in listed.values())
    assert set(RESUMED) < set(COMMANDS)


@pytest.mark.parametrize(
    "name", ["Makefile", "README.md", "CONTRIBUTING.md", "data/README.md", "notebooks/README.md"]
)
def test_commands_that_texts_name_are_there(name):
    named = re.findall(r"-m lib ([a-z][a-z-]*)", (ROOT / name).read_text(encoding="utf-8"))
    assert named
    assert set(named) <= set(COMMANDS)


@pytest.mark.parametrize(
    ("name", "function", "renamed"),
    [
        ("half-precision", half_precision.overlap_table, {}),
        ("selection-speed", selection_speed.measure, {}),
        ("parity", parity.table, {}),
        ("record-cost", record_cost.record_all, {}),
        ("explorer", explorer.write, {}),
        ("seeds", seeds.record, {"out": "folder"}),
        ("train", train.train, {"out": "folder"}),
    ],
)
def test_defaults_are_those_of_the_functions(name, function, renamed):
    taken = inspect.signature(function).parameters
    options = {
        renamed.get(one.name, one.name): one.default for one in COMMANDS[name].params if not one.required
    }
    usual = {
        name: options[name]
        for name in options
        if name in taken and taken[name].default is not inspect.Parameter.empty
    }
    assert usual
    assert usual == {name: taken[name].default for name in usual}


def test_a_committed_table_is_made_with_the_usual_arguments_alone(tmp_path, monkeypatch):
    def make(tokens, keep, draws):
        made.append(draws)
        return pd.DataFrame({"a": [draws]})

    made = []
    committed = tmp_path / "committed.csv"
    monkeypatch.setattr(half_precision, "overlap_table", make)
    monkeypatch.setattr(half_precision, "PATH", committed)
    done = command("half-precision", "--out", committed, "--draws", 2)
    assert done.exit_code == 2
    assert not made
    assert done.stderr == (
        "error: --out must name another file, as --draws is given: committed.csv is made with 10 alone\n"
    )
    assert command("half-precision", "--draws", 2, "--out", tmp_path / "mine.csv").exit_code == 0
    assert command("half-precision", "--out", committed, "--draws", 10).exit_code == 0
    assert committed.read_text() == "a\n10\n"


def test_a_stop_says_whether_the_command_goes_on(tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(record_cost, "record_all", stopped)
    monkeypatch.setattr(parity, "table", stopped)
    resumed, other = command("record-cost", "--out", tmp_path), command("parity")
    assert (resumed.exit_code, resumed.stderr) == (130, "stopped: the same command goes on from here\n")
    assert (other.exit_code, other.stderr) == (130, "stopped\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "nothing"),
        (["readme"], "--write or --show"),
        (["readme", "--write", "--show", "x"], "--write or --show"),
        (["explorer"], "--out"),
        (["live", "x", "--dtype", "int8"], "int8"),
        (["explorer", "--out", "~no-such-user/x"], "~no-such-user/x: no home folder is known"),
    ],
)
def test_wrong_words_end_with_two(words, said):
    done = command(*words)
    assert done.exit_code == 2
    assert said in done.stderr
