"""Where runs write: committed places by default, a folder of their own when told."""

import subprocess
import sys

import pytest

import lib
from lib import paths


def test_root_is_the_checkout():
    assert (paths.ROOT / "pyproject.toml").is_file()
    assert paths.places() == paths.Places(
        records=paths.RECORDS, tables=paths.TABLES, figures=paths.FIGURES, claims=paths.CLAIMS
    )


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
