"""Where runs write: committed places by default, a folder of their own when told."""

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
