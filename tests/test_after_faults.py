"""What faults at random points have brought to light, one by one: each of these once lost, doubled or left something."""

from __future__ import annotations

import fcntl
import itertools
import os
import resource
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from test_build import FAKE, PLAN
from test_fresh_tables import NOW, Impatient, device, maintained, scheduled
from test_table import table

from device_agents.errors import CommandTimedOut, LineTooLong
from device_agents.local import LocalAgent
from device_agents.remote import RemoteStream, Source
from profiler.console import terminable
from profiler.errors import JournalError, JournalNotWritable, RunnerError
from profiler.measure.session import _Course
from profiler.protocol.events import Begin, Crashed, Header, Measurement, Paused, Spent
from profiler.protocol.journal import Journal, journal_path, read_journal
from profiler.protocol.settings import Target, TimingSettings
from profiler.runners import program
from profiler.schedule import replacement
from profiler.schedule.config import ScheduledTable
from profiler.schedule.maintain import maintain
from profiler.schedule.running import next_check
from profiler.schedule.staleness import FreshnessFacts, staleness_reasons
from profiler.schedule.state import State
from profiler.tables.build import StopCriterion, build
from profiler.tables.table import load_table

__all__ = ["device", "scheduled"]
WHERE = Target("local", "fake"), TimingSettings()


# ---------------------------------------------------------------------------------------------------------------- journal


def test_a_journal_has_one_writer_at_a_time(tmp_path: Path) -> None:
    """Simulated devices have no lease, and one device may have two names: two builds of one table wrote each measurement twice."""
    with Journal(tmp_path / "j", *WHERE, resume=True), pytest.raises(JournalNotWritable, match="another build"):
        Journal(tmp_path / "j", *WHERE, resume=True)
    with Journal(tmp_path / "j", *WHERE, resume=True) as journal:
        assert len(journal.recorded) == 1


def test_a_journal_that_was_removed_while_waiting_is_not_written_into(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", *WHERE, resume=True):
        (tmp_path / "j").unlink()
        with Journal(tmp_path / "j", *WHERE, resume=True) as journal:
            journal.append(Spent(1.0))
    assert len(list(read_journal(tmp_path / "j"))) == 2


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("length", [500, 50_000])
def test_a_line_that_found_no_room_leaves_no_half_of_itself_before_the_next(tmp_path: Path, length: int) -> None:
    with Journal(tmp_path / "j", *WHERE, resume=False) as journal:
        with no_file_beyond(1000), pytest.raises(JournalNotWritable):
            journal.append(Measurement("a", 0, 1, (1,) * length))
        journal.append(Spent(1.0))
    assert [type(event) for event in read_journal(tmp_path / "j")] == [Header, Spent]


def test_a_journal_whose_very_first_line_is_torn_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "j").write_text('{"event":"jour')
    Journal(tmp_path / "j", *WHERE, resume=True).__exit__(None, None, None)
    assert [type(event) for event in read_journal(tmp_path / "j")] == [Header]


# ------------------------------------------------------------------------------------------------------------------ builds


class ImpatientRefining(Impatient):
    def __init__(self, left: int) -> None:
        super().__init__(left, "refining")


def test_layers_that_an_interrupted_build_had_begun_with_are_measured_as_often_as_the_others(
    tmp_path: Path, quick: TimingSettings
) -> None:
    """They were in the table, after one measurement, so that it did not ask for them again."""
    out = tmp_path / "t.parquet"
    fine = StopCriterion(target_error_percent=1e-6, max_layers=95)
    with pytest.raises(KeyboardInterrupt):
        build([PLAN], FAKE, out, settings=quick, stop=fine, progress=ImpatientRefining(8))
    table = build([PLAN], FAKE, out, settings=quick, stop=fine, resume=True)
    assert {row.rounds for row in table.rows.values()} == {quick.rounds}


def test_a_runner_that_dies_between_models_is_started_again_if_it_had_got_anywhere() -> None:
    course = _Course([(0, ["a", "b"])], None)
    for event in (Begin("a", 0), Measurement("a", 0, 1, (5,))):
        list(course.see(event))
    assert list(course.see(Crashed("killed"))) == [Paused("killed")]
    with pytest.raises(RunnerError, match="killed"):
        list(course.see(Crashed("killed")))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_build_is_ended_by_a_signal_as_by_ctrl_c(number: signal.Signals) -> None:
    """A phone stayed in its mode of fixed performance, and the models in the folder for temporary files."""
    with pytest.raises(KeyboardInterrupt), terminable():
        os.kill(os.getpid(), number)


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminable():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_half_written_tables_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as dead:
        pass
    for pid in (dead.pid, os.getppid()):
        (tmp_path / f".t.parquet.{pid}.tmp").write_text("half")
    table().save(tmp_path / "t.parquet")
    assert [path.name for path in tmp_path.glob(".*")] == [f".t.parquet.{os.getppid()}.tmp"]


# ------------------------------------------------------------------------------------------------------------------ runners


def test_a_line_without_end_is_given_up_here() -> None:
    endless = [sys.executable, "-c", "import sys\nwhile True: sys.stdout.write('x' * 1000000)"]
    with LocalAgent().stream(endless, silence_s=60) as stream, pytest.raises(LineTooLong, match="without ending the line"):
        list(stream)


class Endless:
    """A channel of a command that has begun and then writes on and on."""

    def __init__(self, nonce: str) -> None:
        self.parts = deque([f"{nonce} began 17 1234\n".encode()])

    def receive(self, timeout_s: float) -> tuple[Source, bytes]:
        return Source.OUT, self.parts.popleft() if self.parts else b"x" * 65536

    def close(self) -> None:
        pass


def test_a_line_without_end_is_given_up_far_away() -> None:
    with pytest.raises(LineTooLong, match="without ending the line"):
        list(RemoteStream(Endless("n0nce"), "n0nce", "ssh:board", "runner"))


def test_a_runner_that_only_chatters_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count()
    monkeypatch.setattr(program, "time", SimpleNamespace(monotonic=lambda: float(next(now))))
    with pytest.raises(CommandTimedOut, match="nothing that makes sense for 20 s"):
        list(program._events(itertools.repeat("WARNING: falling back\n"), 20.0))


# ----------------------------------------------------------------------------------------------------------------- schedule


def test_an_unfinished_table_that_cannot_be_written_now_is_resumed_later(scheduled: ScheduledTable) -> None:
    """Such a table was once set aside, as if the device had changed, and all of it was measured again."""
    with pytest.raises(KeyboardInterrupt):
        maintain(scheduled, NOW, Impatient(20), Random(1))
    new = journal_path(replacement.new_path(scheduled.out))
    before = new.read_bytes()
    with new.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(JournalError):
            maintained(scheduled)
    assert new.read_bytes() == before
    assert maintained(scheduled).did == "rebuilt"
    assert journal_path(scheduled.out).read_bytes().startswith(before)


def test_a_table_that_was_checked_under_a_clock_that_was_ahead_is_checked_now(scheduled: ScheduledTable) -> None:
    now = datetime.now(UTC)
    ahead, short = (State(looked_utc=(now + by).isoformat()) for by in (timedelta(days=4000), timedelta(seconds=2)))
    assert next_check(scheduled, ahead, now) < now
    assert next_check(scheduled, short, now) > now


def test_a_table_from_the_future_is_stale() -> None:
    (reason,) = staleness_reasons(FreshnessFacts(age_days=-4000.0))
    assert "4000 days ahead" in reason.text
    assert not staleness_reasons(FreshnessFacts(age_days=-0.1))


def test_half_copied_tables_in_the_history_are_removed(scheduled: ScheduledTable) -> None:
    maintained(scheduled)
    history = scheduled.out.parent / "history"
    history.mkdir(exist_ok=True)
    (history / f".{scheduled.out.stem}-20260101T000000Z.parquet.tmp").write_text("half")
    maintained(replace(scheduled, target=replace(scheduled.target, threads=2)))
    assert not list(history.glob(".*"))
    assert load_table(scheduled.out).info.target.threads == 2
