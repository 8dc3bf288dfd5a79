from __future__ import annotations

import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import JournalError
from profiler.measure.journal import Journal, read_journal

HEADER = {"target": {"runtime": "fake", "threads": 1}, "settings": {"rounds": 6}}


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", HEADER, resume=False) as journal:
        journal.append({"event": "seen", "round": 1})
        journal.append({"event": "seen", "round": 2})
    assert [line.get("round") for line in read_journal(tmp_path / "j")] == [None, 1, 2]


def test_a_line_is_on_file_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", HEADER, resume=False) as journal:
        journal.append({"event": "seen"})
        assert len(list(read_journal(tmp_path / "j"))) == 2


def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, HEADER, resume=False) as journal:
        journal.append({"event": "seen", "round": 1})
    with path.open("a") as file:
        file.write('{"event":"seen","rou')
    with Journal(path, HEADER, resume=True) as journal:
        journal.append({"event": "seen", "round": 2})
    assert [line.get("round") for line in read_journal(path)] == [None, 1, 2]


def test_a_journal_that_is_left_over_is_not_touched_without_resume(tmp_path: Path) -> None:
    path = tmp_path / "j"
    Journal(path, HEADER, resume=False).__exit__(None, None, None)
    before = path.read_bytes()
    with pytest.raises(JournalError, match="--resume"):
        Journal(path, HEADER, resume=False)
    assert path.read_bytes() == before


def test_going_on_under_other_conditions_names_the_one_that_differs(tmp_path: Path) -> None:
    Journal(tmp_path / "j", HEADER, resume=False).__exit__(None, None, None)
    with pytest.raises(JournalError, match="threads 1, not 2"):
        Journal(tmp_path / "j", {**HEADER, "target": {"runtime": "fake", "threads": 2}}, resume=True)


def test_damage_in_the_middle_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "j"
    Journal(path, HEADER, resume=False).__exit__(None, None, None)
    with path.open("a") as file:
        file.write("garbage\n" + '{"event":"seen"}\n')
    with pytest.raises(JournalError, match="line 2"):
        list(read_journal(path))


def test_a_disk_that_takes_no_more_is_told_plainly(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(tmp_path / "j", HEADER, resume=False) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
        try:
            with pytest.raises(JournalError, match="cannot be written"):
                journal.append({"event": "seen", "samples_ns": [1] * 500})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@given(st.binary(max_size=200))
def test_any_bytes_give_lines_or_our_error(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "j")
        path.write_bytes(data)
        try:
            list(read_journal(path))
        except JournalError as exc:
            assert "\n" not in str(exc)
