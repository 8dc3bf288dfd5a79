from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from device_agents.errors import LinkLost
from profiler.devices.fleet import Stopped, on_each
from profiler.progress import ProgressReporter, Silent

NAMES = ["a", "b", "c"]
PROGRESS: dict[str, ProgressReporter] = {name: Silent() for name in NAMES}


def test_every_device_works_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=20)  # none gets past it alone
    assert on_each(NAMES, lambda name, _: (together.wait(), name)[1], PROGRESS) == {name: name for name in NAMES}


def test_one_device_lost_does_not_stop_the_others() -> None:
    def work(name: str, progress: ProgressReporter) -> str:
        if name == "b":
            raise LinkLost("gone")
        return name

    found = on_each(NAMES, work, PROGRESS)
    assert (found["a"], found["c"]) == ("a", "c")
    assert isinstance(found["b"], LinkLost)


def test_this_machine_waits_for_the_others() -> None:
    order: list[str] = []

    def work(name: str, progress: ProgressReporter) -> None:
        time.sleep(0.05 if name != "a" else 0)
        order.append(name)

    on_each(NAMES, work, PROGRESS, last=["a"])
    assert order[-1] == "a"


def test_ctrl_c_stops_every_worker_where_it_reports_next() -> None:
    left: list[str] = []
    ready = threading.Barrier(3, timeout=20)

    def work(name: str, progress: ProgressReporter) -> None:
        try:
            if ready.wait() == 0:
                os.kill(os.getpid(), signal.SIGINT)
            while True:
                progress.advance()
                time.sleep(0.01)
        except Stopped:
            left.append(name)
            raise

    with pytest.raises(KeyboardInterrupt):
        on_each(NAMES, work, PROGRESS)
    assert sorted(left) == NAMES


def test_a_mistake_of_ours_is_not_taken_for_a_lost_device() -> None:
    def work(name: str, progress: ProgressReporter) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        on_each(NAMES, work, PROGRESS)


def test_a_mistake_of_ours_on_one_device_stops_the_others_too() -> None:
    """They would go on for hours, and nobody could read what they found."""
    done: list[str] = []

    def work(name: str, progress: ProgressReporter) -> None:
        if name == "a":
            raise ZeroDivisionError
        for _ in range(300):
            progress.advance()
            time.sleep(0.01)
        done.append(name)

    with pytest.raises(ZeroDivisionError):
        on_each(NAMES, work, PROGRESS)
    assert done == []
