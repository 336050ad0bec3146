"""Record files: what goes in comes out, and what does not belong is refused with one clear error."""

from dataclasses import dataclass, field
from typing import ClassVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.pruning.methods import make
from lib.study import records
from testkit.frames import accuracy_rows, measure_rows


@dataclass(frozen=True, kw_only=True)
class Toy:
    name: ClassVar[str] = "toy"
    keep: int = 8
    share: float = 0.5
    merge: bool = True
    parts: tuple = field(default_factory=tuple)
    seed: int = 0


def test_arm_label_names_only_what_changed():
    assert records.arm_label(Toy(keep=3, seed=9)) == "toy"
    assert records.arm_label(Toy(merge=False, share=1.0)) == "toy/share=1.0,merge=False"
    with pytest.raises(ValueError, match="dataclass instance"):
        records.arm_label("toy")


def test_a_field_that_a_class_fills_in_is_told_only_where_it_was_given():
    assert records.arm_label(make("sparsevlm", keep=3)) == "sparsevlm"
    assert records.arm_label(make("sparsevlm", keep=3, version="v2")) == "sparsevlm/version=v2"
    given = make("sparsevlm", keep=3, version="v2", positions="renumbered")
    assert records.arm_label(given) == "sparsevlm/positions=renumbered,version=v2"
    assert records.arm_label(make("desap", keep=3, key_tokens=4)) == "desap/key_tokens=4"


def test_write_and_read_back_with_provenance(tmp_path):
    frame = accuracy_rows("desap", 16, 0.5)
    facts = records.provenance(seed=3, device="cpu")
    path = records.write(frame, tmp_path / "deep" / "desap.parquet", facts)
    assert records.read(path).equals(frame)
    found = records.read_provenance(path)
    assert (found["seed"], found["device"]) == (3, "cpu")
    assert {"commit", "dirty", "versions", "date"} <= set(found)
    assert [entry.name for entry in path.parent.iterdir()] == ["desap.parquet"]


def test_columns_may_come_in_any_order(tmp_path):
    frame = accuracy_rows("desap", 16, 0.5)
    path = records.write(frame[sorted(frame.columns)], tmp_path / "a.parquet", {})
    assert list(records.read(path).columns) == list(records.ACCURACY)


def _corrupt(path):
    path.write_bytes(path.read_bytes()[:200])


def _text(path):
    path.write_text("model,method\n")


def _foreign(path):
    pd.DataFrame({"a": [1]}).to_parquet(path)


def _measure(path):
    records.write(measure_rows("x", [1.0]), path, {}, "measure")


def _absent(path):
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_corrupt, "bad.parquet: not a readable parquet file"),
        (_text, "bad.parquet: not a readable parquet file"),
        (_foreign, "bad.parquet: a parquet file, but not a record of this study"),
        (_measure, "bad.parquet: holds measure rows, asked for accuracy"),
        (_absent, "bad.parquet: no such record file"),
    ],
)
def test_reading_refuses_what_is_no_record(tmp_path, spoil, said):
    path = records.write(accuracy_rows("desap", 16, 0.5), tmp_path / "bad.parquet", {})
    spoil(path)
    with pytest.raises(ValueError, match=said):
        records.read(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.drop(columns="seed"), r"columns missing \['seed'\]"),
        (lambda frame: frame.assign(extra=1), r"not known \['extra'\]"),
        (lambda frame: frame.assign(correct=2.0), r"correct must lie in \[0, 1\]"),
        (lambda frame: frame.assign(answer=None), r"empty values in \['answer'\]"),
        (lambda frame: frame.assign(keep="many"), "many"),
        (lambda frame: frame.head(0), "no rows"),
        (lambda frame: pd.concat([frame, frame]), "the same row twice"),
    ],
)
def test_writing_refuses_bad_rows_and_leaves_no_file(tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        records.write(change(accuracy_rows("desap", 16, 0.5)), tmp_path / "a.parquet", {})
    assert not list(tmp_path.iterdir())


def test_folder_reads_one_kind_and_refuses_rows_held_twice(tmp_path):
    assert records.read_folder(tmp_path).empty
    records.write(accuracy_rows("desap", 16, 0.5), tmp_path / "a.parquet", {})
    records.write(accuracy_rows("cls", 16, 0.5), tmp_path / "deep" / "b.parquet", {})
    records.write(measure_rows("x", [1.0]), tmp_path / "c.parquet", {}, "measure")
    assert set(records.read_folder(tmp_path)["arm"]) == {"desap", "cls"}
    assert len(records.read_folder(tmp_path, "measure")) == 1
    records.write(accuracy_rows("cls", 16, 0.5), tmp_path / "d.parquet", {})
    with pytest.raises(ValueError, match="the same row twice"):
        records.read_folder(tmp_path)


def _damaged(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content)


def _rewritten(change):
    """Change a record's rows as no writer here would, under the mark of this study."""
    return lambda path: pq.write_table(change(pq.read_table(path)), path)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_corrupt, "bad.parquet: not a readable parquet file"),
        (_damaged, "bad.parquet: not a readable parquet file"),
        (_foreign, "bad.parquet: a parquet file, but not a record of this study"),
        (_rewritten(lambda rows: rows.slice(0, 0)), "bad.parquet: no rows"),
        (_rewritten(lambda rows: rows.drop_columns("kept_on_evidence")), "bad.parquet: columns missing"),
        (_rewritten(lambda rows: pa.concat_tables([rows, rows])), "bad.parquet: the same row twice"),
    ],
)
def test_a_folder_names_the_file_at_fault(tmp_path, spoil, said):
    records.write(accuracy_rows("cls", 16, 0.5), tmp_path / "a.parquet", {})
    spoil(records.write(accuracy_rows("desap", 16, 0.5), tmp_path / "bad.parquet", {}))
    with pytest.raises(ValueError, match=said):
        records.read_folder(tmp_path)
