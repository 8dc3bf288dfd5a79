"""Several devices at once: one worker for each, one job at a time on each; one that is lost does not stop the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from device_agents.support.errors import ToolError
from profiler.progress import ProgressReporter

T = TypeVar("T")
LOOK_S = 0.2
"""Ctrl-C that comes a moment before a thread begins to wait is only seen when the waiting ends."""


class Stopped(BaseException):
    """Raised inside a worker after Ctrl-C, where it next reports progress; not an error, so nothing may swallow it."""


class _Stoppable:
    """Passes progress on, until the work is to stop."""

    def __init__(self, work: ProgressReporter, stop: threading.Event) -> None:
        self._work, self._stop = work, stop

    def begin(self, what: str, total: int) -> None:
        self._check()
        self._work.begin(what, total)

    def advance(self, note: str = "") -> None:
        self._check()
        self._work.advance(note)

    def say(self, text: str) -> None:
        self._check()
        self._work.say(text)

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped


def on_each(
    devices: Sequence[str],
    work: Callable[[str, ProgressReporter], T],
    progress: Mapping[str, ProgressReporter],
    *,
    last: Sequence[str] = (),
) -> dict[str, T | ToolError]:
    """What `work` made of each device, or the error that stopped it there, in the order of `devices`.

    Those in `last` (this very machine) wait for the others, whose tables would be computed while it is measured.
    """
    stop, begin = threading.Event(), threading.Event()
    found: dict[str, T | ToolError] = {}

    def one(device: str) -> None:
        begin.wait()  # a thread that Ctrl-C comes upon while it is being started is waited for by nobody, so it must not work
        if stop.is_set():
            return
        try:
            found[device] = work(device, _Stoppable(progress[device], stop))
        except ToolError as exc:
            found[device] = exc
            progress[device].say(f"given up: {exc}")

    groups = ([name for name in devices if name not in last], [name for name in devices if name in last])
    for group in filter(None, groups):
        with ThreadPoolExecutor(len(group)) as pool:
            try:
                workers = [pool.submit(one, device) for device in group]
                begin.set()
                for worker in workers:
                    while not wait([worker], timeout=LOOK_S).done:
                        pass
                    worker.result()
            except BaseException:  # Ctrl-C, or a mistake of ours
                stop.set()  # leaving the pool waits until each worker has put its device in order
                begin.set()
                raise
    return {device: found[device] for device in devices}
