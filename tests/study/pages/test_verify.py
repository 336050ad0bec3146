"""Verification: a clean tree passes, and a value altered by hand is named by file, row and column."""

import shutil

import pandas as pd
import pytest

from lib.paths import ROOT
from lib.study import claims, records
from lib.study.pages import manifest, readme, verify
from lib.study.tables import accuracy_table, write_table
from testkit.frames import accuracy_rows

STEMS = ("11_some", "90_verdicts")


def _read_tables(notebook, output, root):
    """Do what a recorded notebook does, in this process: tables and verdicts out of the tree's records."""
    folder = root / "data" / "records"
    write_table(accuracy_table(records.read_folder(folder)), output / "tables" / "accuracy.csv")
    if notebook.stem == "90_verdicts":
        claims.update(folder, output / "claims.csv")


@pytest.fixture
def tree(tmp_path):
    """A small repository: records of three arms, the table, register and README made of them, a manifest."""
    folder = tmp_path / "data" / "records"
    for arm, keep, rate in (("none", 144, 0.9), ("blind", 0, 0.3), ("desap", 16, 0.6)):
        rows = accuracy_rows(arm, keep, rate, questions=10)
        records.write(rows, folder / "accuracy" / f"{arm}.parquet", records.provenance())
    (tmp_path / "notebooks").mkdir()
    for stem in STEMS:
        (tmp_path / "notebooks" / f"{stem}.ipynb").touch()
        _read_tables(tmp_path / f"{stem}.ipynb", tmp_path / "data", tmp_path)
    # One arm's file wrote the accuracy table beside the records; the README quotes it.
    data = tmp_path / "data"
    quoted = readme.block(data / "claims.csv", data / "tables" / "accuracy.csv", tmp_path)
    text = readme.with_results(f"# Title\n{readme.BEGIN}\n{readme.END}\n", quoted)
    (tmp_path / "README.md").write_text(text)
    for name in manifest.CHECKED:
        (tmp_path / name).mkdir(exist_ok=True)
        manifest.write_manifest(tmp_path / name)
    return tmp_path


def _found(tree, **options):
    return verify.verify(tree, run=_read_tables, **options)[0]


def test_a_clean_tree_passes_and_nothing_in_it_is_written(tree):
    before = manifest.checksums(tree)
    found, seen = verify.verify(tree, run=_read_tables)
    assert found == []
    assert seen == {"data/tables/accuracy.csv", "data/claims.csv", "README.md"}
    assert manifest.checksums(tree) == before


def test_an_altered_record_is_named_with_the_cells_that_no_longer_follow(tree):
    path = tree / "data" / "records" / "accuracy" / "desap.parquet"
    rows, facts = records.read(path), records.read_provenance(path)
    wrong = rows.index[(rows["suite"] == "read") & (rows["correct"] == 0)][0]
    rows.loc[wrong, "correct"] = 1.0
    records.write(rows, path, facts)
    found = _found(tree)
    assert "data/records/accuracy/desap.parquet" in {difference.file for difference in found}
    table = [difference for difference in found if difference.file == "data/tables/accuracy.csv"]
    assert {difference.row.split("(")[1] for difference in table} == {
        "scenes, desap, 16, read)",
        "scenes, desap, 16, all)",
    }
    read = next(one for one in table if ", read)" in one.row and one.column == "accuracy")
    assert (read.committed, read.recomputed) == ("0.6", "0.7")
    assert "accuracy: committed '0.6', recomputed '0.7'" in str(read)


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("data/claims.csv", "not testable here", "supported", ("verdict", "supported", "not testable here")),
        ("README.md", "| not testable here |", "| supported |", ("line", "supported", "not testable here")),
        ("data/tables/accuracy.csv", "0.6", "0.61", ("accuracy", "0.61", "0.6")),
    ],
)
def test_an_altered_product_is_named(tree, name, old, new, said):
    path = tree / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    (difference,) = _found(tree)
    assert difference.file == name
    assert said[0] in (difference.column or difference.row)
    assert said[1] in difference.committed
    assert said[2] in difference.recomputed


def test_lost_added_and_unmade_files_are_named(tree):
    folder = tree / "data" / "records" / "accuracy"
    shutil.copy(folder / "blind.parquet", tree / "data" / "records" / "more.parquet")
    (tree / "data" / "tables" / "by_hand.csv").write_text("a\n1\n")
    (tree / "data" / "tables" / "selection_speed.csv").write_text("a\n1\n")  # a script's: not verified
    found = manifest.compare_manifest(tree / "data" / "records", "data/records")
    assert [(one.file, one.committed) for one in found] == [("data/records/more.parquet", "not listed")]
    (tree / "data" / "records" / "more.parquet").unlink()
    assert [str(one) for one in _found(tree)] == [
        "data/tables/by_hand.csv: committed 'a file', recomputed 'made by no notebook'"
    ]
    assert _found(tree, stems=STEMS[:1]) == []  # one notebook alone does not have to make all


def test_a_computed_table_is_computed_again(tree, monkeypatch):
    path = tree / "data" / "tables" / "parity.csv"
    path.write_text("method,trials\ncls,72\n")
    monkeypatch.setattr(
        verify, "COMPUTED", {"parity.csv": lambda: pd.DataFrame({"method": ["cls"], "trials": [71]})}
    )
    assert [str(one) for one in _found(tree)] == [
        "data/tables/parity.csv, line 2 (cls, 72), trials: committed '72', recomputed '71'"
    ]
    assert _found(tree, stems=STEMS[:1]) == []
    path.write_text("method,trials\ncls,71\n")
    assert _found(tree) == []


def test_tables_differ_by_header_row_and_cell_and_rounding_is_for_declared_figures(tmp_path):
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    frame = pd.DataFrame({"name": ["a", "b"], "value": [1.0, 2.0]})
    frame.to_csv(one, index=False)
    cosines = "figures/10_patch_and_word.csv"  # three decimals
    frame.assign(value=[1.0, 2.001]).to_csv(other, index=False)
    (found,) = verify.compare_tables(one, other, "one.csv")
    assert found == ("one.csv", "line 3 (b, 2.0)", "value", "2.0", "2.001")
    assert verify.compare_tables(one, other, cosines) == []
    frame.assign(value=[1.0, 2.002]).to_csv(other, index=False)
    assert len(verify.compare_tables(one, other, cosines)) == 1
    frame.assign(name=["a", "c"]).to_csv(other, index=False)
    assert len(verify.compare_tables(one, other, cosines)) == 1
    frame.head(1).to_csv(other, index=False)
    assert verify.compare_tables(one, other, "one.csv")[0].recomputed == "no such row"
    frame.rename(columns={"name": "label"}).to_csv(other, index=False)
    assert verify.compare_tables(one, other, "one.csv")[0].row == "header"


def test_bad_arguments_are_named(tree):
    with pytest.raises(ValueError, match="notebook '12_none' is unknown; known: 11_some, 90_verdicts"):
        _found(tree, stems=["12_none"])
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        _found(tree, jobs=0)
    (tree / "data" / "records" / manifest.MANIFEST).write_text("short  name\n")
    with pytest.raises(ValueError, match="holds the line 'short  name'"):
        _found(tree)
    (tree / "data" / "records" / manifest.MANIFEST).unlink()
    with pytest.raises(ValueError, match="--write-manifest"):
        _found(tree)


def test_a_failing_notebook_is_an_error_with_its_last_words(tmp_path):
    book = tmp_path / "book.ipynb"
    book.write_text("{}")
    with pytest.raises(ValueError, match=r"book.ipynb failed:\n(.|\n)*not a notebook"):
        verify.run_notebook(book, tmp_path / "out")


@pytest.mark.parametrize("name", manifest.CHECKED)
def test_the_committed_records_are_those_of_the_manifest(name):
    assert manifest.compare_manifest(ROOT / name, name) == []
