"""Where runs write: committed places when asked by name, a folder of their own when told, else one that git ignores."""

import subprocess
import sys

import pandas as pd
import pytest
from typer.main import get_command

import lib
from lib import paths
from lib.commands import app
from lib.models import checkpoints
from lib.study import sweep
from lib.study.costs import half_precision
from testkit.commands import command


def test_root_is_the_checkout():
    assert (paths.ROOT / "pyproject.toml").is_file()
    assert paths.places(paths.EVIDENCE) == paths.Places(
        records=paths.RECORDS, tables=paths.TABLES, figures=paths.FIGURES, claims=paths.CLAIMS
    )


def test_a_notebook_run_by_hand_or_by_a_test_writes_nothing_that_is_committed():
    found = paths.places("")
    folders = (found.records, found.tables, found.figures, found.claims)
    assert all(folder.is_relative_to(paths.BY_HAND) for folder in folders)
    assert paths.BY_HAND.is_relative_to(paths.RUNS)


def test_an_output_folder_takes_everything(tmp_path):
    found = paths.places(str(tmp_path / "run"))
    assert found.claims == tmp_path / "run" / "claims.csv"
    assert found.records.is_dir()
    assert found.figures.is_dir()


def test_the_package_imports_its_names_on_first_use():
    script = "import sys, lib; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=paths.ROOT, check=True)
    assert lib.prune.__module__ == "lib.models.prune"
    assert lib.methods.__name__ == "lib.pruning.methods"
    with pytest.raises(AttributeError, match="module 'lib' has no attribute 'nothing'"):
        getattr(lib, "nothing")  # noqa: B009


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, with a working directory beside it in which nothing called ~ may appear."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "home"
    assert not list((tmp_path / "here").iterdir())
    assert not (paths.ROOT / "~").exists()


def test_a_tilde_is_the_home_folder_wherever_a_user_names_a_path(home, monkeypatch):
    assert paths.user_path("~/x") == home / "x"
    assert paths.places("~/run").figures == home / "run" / "figures"
    monkeypatch.setattr(half_precision, "overlap_table", lambda *given: pd.DataFrame({"a": [1]}))
    assert command("half-precision", "--out=~/o.csv").exit_code == 0
    assert (home / "o.csv").is_file()
    words = ["~/model", "--out=~/o", "--data=~/d"]
    options = get_command(app).commands["live"].make_context("live", words).params
    assert (options["out"], options["data"]) == (home / "o", home / "d")
    (home / "model").mkdir()
    with pytest.raises(OSError, match=f"config.json is missing in {home}/model"):
        checkpoints.locate("~/model")
    run = sweep.Run(notebook="a", values={}, parameters={"output": "~/sweep"}, cells="")
    assert run.output == f"{home}/sweep"


def test_an_unknown_home_folder_is_named():
    with pytest.raises(ValueError, match="~no-such-user/x: no home folder is known"):
        paths.user_path("~no-such-user/x")


def test_no_command_takes_a_path_another_way():
    for path in (paths.ROOT / "lib").rglob("*.py"):
        assert "type=Path" not in path.read_text(encoding="utf-8"), path.name
