"""The line-wise file of answers: what a kill leaves behind, and what must not be mixed."""

import pytest

from lib.study.harness import journal

HEADER = {"model": "tiny", "fields": {"keep": (1, 2)}}


def rows(*numbers):
    return [{"row": number, "prediction": "rød"} for number in numbers]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a" / "b.jsonl"
    with journal.opened(path, HEADER) as book:
        assert (book.done, book.last) == (0, -1)
        book.append(rows(0, 1))
        book.append(rows(4, 5), "smaller")
    return path


def test_rows_come_back_in_order(path):
    header, found, notes = journal.read(path)
    assert header == {"model": "tiny", "fields": {"keep": [1, 2]}}
    assert found == rows(0, 1, 4, 5)
    assert notes == ["smaller"]


def test_every_place_where_a_kill_can_cut(path, tmp_path):
    whole = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole) + 1):
        torn = tmp_path / "torn.jsonl"
        torn.write_bytes(whole[:cut])
        with journal.opened(torn, HEADER) as book:
            batches = sum(end <= cut for end in ends[1:])
            assert (book.done, book.last) == ((0, -1), (2, 1), (4, 5))[batches]
            for batch in ((0, 1), (4, 5))[batches:]:
                book.append(rows(*batch), "smaller" if batch[0] else "")
        assert torn.read_bytes() == whole


def test_other_settings_are_refused(path):
    with (
        pytest.raises(ValueError, match=r"b\.jsonl: holds answers made with another model, weights; choose"),
        journal.opened(path, HEADER | {"model": "large", "weights": "w"}),
    ):
        pass


def test_one_writer_at_a_time(path):
    with (
        journal.opened(path, HEADER),
        pytest.raises(ValueError, match="another run is writing"),
        journal.opened(path, HEADER),
    ):
        pass


def test_damage_is_named(path):
    whole = path.read_bytes()
    for spoilt, told in (
        (whole.replace(b'"row": 4', b'"row" 4'), "line 3 is damaged"),
        (whole + whole.splitlines(keepends=True)[1], "a row is there twice"),
    ):
        path.write_bytes(spoilt)
        with pytest.raises(ValueError, match=told):
            journal.read(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        journal.read(path)
    with pytest.raises(ValueError, match="no such journal"):
        journal.read(path.with_name("c"))
