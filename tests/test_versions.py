"""The versions that pyproject.toml names are those that are tested, and their environments are made once."""

import subprocess

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from lib.models import borrowed
from lib.paths import ROOT
from testkit import versions

PROJECT = versions.tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
SETS = {
    name: {plain.name: plain.specifier for plain in map(Requirement, pins)}
    for name, pins in PROJECT["tool"]["versions"].items()
}


@pytest.mark.parametrize("name", ["torch", "transformers"])
def test_the_lowest_set_is_the_lower_bound(name):
    bounds = {plain.name: plain.specifier for plain in map(Requirement, PROJECT["project"]["dependencies"])}
    ((lowest,), (bound,)) = SETS["lowest"][name], bounds[name]
    assert lowest.operator == "=="
    assert (bound.operator, Version(bound.version).release[:2]) == (">=", Version(lowest.version).release[:2])
    assert bounds[name].contains(lowest.version)


def test_the_library_names_the_same_versions():
    tested = [str(SETS[name]["transformers"]) for name in ("lowest", "newest")]
    assert tested == [f"=={borrowed.LOWEST}", f"=={borrowed.NEWEST}"]


@pytest.mark.parametrize("name", ["torch", "transformers"])
def test_the_pinned_environment_lies_between(name):
    (pinned,) = [line.split("==")[1] for line in CONSTRAINTS.splitlines() if line.startswith(f"{name}==")]
    low, high = (next(bound.version for bound in SETS[place][name]) for place in ("lowest", "newest"))
    assert Version(low) <= Version(pinned) <= Version(high)


def test_constraints_of_what_a_set_decides_are_dropped():
    wanted, kept = versions.requirements(
        ("torch==1", "transformers==2"), "NumPy==3\ntorch==4\nhuggingface_hub==5\n"
    )
    assert wanted[:2] == ["torch==1", "transformers==2"]
    assert kept == ["NumPy==3"]


def test_an_environment_is_made_once_and_again_when_it_should_change(monkeypatch, tmp_path):
    done = []

    def run(words, **options):
        done.append(words)
        (tmp_path / "low").mkdir(exist_ok=True)

    monkeypatch.setattr(versions, "FOLDER", tmp_path)
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    for _ in range(2):
        assert versions.environment("low", ("torch==1",), "numpy==2") == tmp_path / "low" / "bin" / "python"
    assert len(done) == 2  # make and install
    versions.environment("low", ("torch==1.1",), "numpy==2")
    assert len(done) == 4


def test_unknown_sets_are_refused(capsys):
    assert versions.main(["oldest"]) == 2
    assert "sets of versions are lowest, newest, index, got oldest" in capsys.readouterr().err
