"""The last step of `make test`: files that checks changed are named, one's own changes from before are not."""

import subprocess

import pytest

import unchanged
from lib.paths import ROOT


@pytest.fixture
def checkout(tmp_path):
    """A git checkout with a tracked, a changed, an untracked and an ignored file."""
    for name, text in ((".gitignore", "/data/runs/\n"), ("figure.csv", "1\n"), ("changed", "1\n")):
        (tmp_path / name).write_text(text)
    for words in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    (tmp_path / "changed").write_text("mine\n")
    (tmp_path / "new").write_text("mine\n")
    assert unchanged.main(["note"], tmp_path) == 0
    return tmp_path


def test_nothing_changed(checkout, capsys):
    (checkout / "data/runs/by_hand").write_text("ignored")
    assert unchanged.main(["check"], checkout) == 0
    assert "left all 4 files as they were" in capsys.readouterr().out


def test_what_changed_is_named(checkout, capsys):
    (checkout / "figure.csv").write_text("2\n")
    (checkout / "more").write_text("a\n")
    (checkout / "new").unlink()
    assert unchanged.main(["check"], checkout) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[0].startswith("error: the checks changed files")
    assert said.split()[-3:] == ["figure.csv", "more", "new"]


def test_without_git_and_with_a_wrong_word(tmp_path, capsys):
    assert unchanged.main(["check"], tmp_path) == 0
    assert "not a git checkout" in capsys.readouterr().out
    assert unchanged.main([], tmp_path) == 2


def test_make_test_ends_with_it():
    (recipe,) = (part for part in (ROOT / "Makefile").read_text().split("\n\n") if part.startswith("test:"))
    lines = recipe.splitlines()[1:]
    assert "unchanged.py note" in lines[0]
    assert "unchanged.py check" in lines[-1]
