from __future__ import annotations

import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import JournalError
from profiler.protocol.events import Measurement, Round, Spent
from profiler.protocol.journal import Journal, read_journal
from profiler.protocol.settings import Target, TimingSettings

WHERE = Target("local", "fake"), TimingSettings()


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", *WHERE, resume=False) as journal:
        journal.append(Round(round=1))
        journal.append(Round(round=2))
    assert list(read_journal(tmp_path / "j"))[1:] == [Round(round=1), Round(round=2)]


def test_a_line_is_on_file_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", *WHERE, resume=False) as journal:
        journal.append(Spent(1.0))
        assert len(list(read_journal(tmp_path / "j"))) == 2


def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, *WHERE, resume=False) as journal:
        journal.append(Round(round=1))
    with path.open("a") as file:
        file.write('{"event":"round","rou')
    with Journal(path, *WHERE, resume=True) as journal:
        journal.append(Round(round=2))
    assert list(read_journal(path))[1:] == [Round(round=1), Round(round=2)]


def test_a_journal_that_is_left_over_is_not_touched_without_resume(tmp_path: Path) -> None:
    path = tmp_path / "j"
    Journal(path, *WHERE, resume=False).__exit__(None, None, None)
    before = path.read_bytes()
    with pytest.raises(JournalError, match="--resume"):
        Journal(path, *WHERE, resume=False)
    assert path.read_bytes() == before


def test_going_on_under_other_conditions_names_the_one_that_differs(tmp_path: Path) -> None:
    Journal(tmp_path / "j", *WHERE, resume=False).__exit__(None, None, None)
    with pytest.raises(JournalError, match="threads 1, not 2"):
        Journal(tmp_path / "j", Target("local", "fake", threads=2), TimingSettings(), resume=True)


def test_damage_in_the_middle_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "j"
    Journal(path, *WHERE, resume=False).__exit__(None, None, None)
    with path.open("a") as file:
        file.write("garbage\n" + '{"event":"spent","wall_s":1.0}\n')
    with pytest.raises(JournalError, match="line 2"):
        list(read_journal(path))


def test_a_disk_that_takes_no_more_is_told_plainly(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(tmp_path / "j", *WHERE, resume=False) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(JournalError, match="cannot be written"):
                journal.append(Measurement("a", 0, 1, (1,) * 500))
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
