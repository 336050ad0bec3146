"""The verdict table: between its markers, the same type for every verdict, and shown after a run."""

import re

import pytest

from lib.study import claims
from lib.study.pages import readme
from testkit.commands import command

TEXT = f"# Title\n\n{readme.BEGIN}\nstale words\n{readme.END}\n\nrest\n"


def test_table_goes_between_the_markers_and_nowhere_else(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(TEXT)
    assert readme.write_results(path, readme.block())
    text = path.read_text()
    assert text.startswith("# Title\n\n")
    assert text.endswith("\n\nrest\n")
    assert "stale words" not in text
    assert len(re.findall(r"^\| \[[A-Z]-\d+\]", text, flags=re.MULTILINE)) == 26
    assert not readme.write_results(path, readme.block())


@pytest.mark.parametrize("text", ["no marker", TEXT + readme.BEGIN, f"{readme.END}{readme.BEGIN}"])
def test_markers_must_be_there_once(text):
    with pytest.raises(ValueError, match="once each"):
        readme.with_results(text, "table")


def test_numbers_come_with_their_interval():
    register = (
        claims.read_claims()
        .head(1)
        .assign(n="9", estimate="0.1", low="0.05", high="0.2", verdict="supported")
    )
    assert "| supported |  | 0.1 [0.05, 0.2] | 9 |" in readme.verdict_table(register)
    assert "| supported | 2 of 3 | 0.1 [" in readme.verdict_table(register, {"D-1": "2 of 3"})
    assert readme.tally(register) == "1 claims: 1 supported."


def test_trainings_that_agree_with_the_register_are_counted(tmp_path):
    path = tmp_path / "seed_verdicts.csv"
    assert readme.agreement(path) == {}
    path.write_text(
        "id,committed,seed 0,estimate 0,seed 1,estimate 1\nD-1,supported,supported,1,,\nD-2,inconclusive,supported,1,supported,1\n"
    )
    assert readme.agreement(path) == {"D-1": "1 of 2", "D-2": "0 of 2"}


def test_show_prints_verdicts_and_places(tmp_path):
    (tmp_path / "figures").mkdir()
    claims.read_claims().to_csv(tmp_path / "claims.csv", index=False)
    done = command("readme", "--show", tmp_path)
    assert done.exit_code == 0
    out = done.stdout
    assert "D-17" in out
    assert str(tmp_path / "figures") in out
    done = command("readme", "--show", tmp_path / "absent")
    assert done.exit_code == 2
    assert "no such claim register" in done.stderr
