"""Work on several devices at once: one thread for each device. A device that fails does not stop the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from device_agents.support.errors import ToolError
from profiler.progress import ProgressReporter

T = TypeVar("T")
POLL_S = 0.2
"""The longest wait without a break: a Ctrl-C that comes just before a wait begins is noticed only when the wait ends."""


class Stopped(BaseException):
    """Ends a worker after Ctrl-C, at its next progress report. It is no `Exception`, so that no handler of errors swallows it."""


class _StoppableReporter:
    """A progress reporter that raises `Stopped` once `stop` is set, and otherwise passes everything on."""

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
    """The result of `work` for each device, or the error that ended it there, in the order of `devices`.

    `work` receives the device and its reporter from `progress`. The devices in `last`, normally the host itself, begin when all
    others have ended: the host computes the tables of the others, which would disturb measurements on it.
    """
    stop = threading.Event()
    begin = threading.Event()
    results: dict[str, T | ToolError] = {}

    def work_on(device: str) -> None:
        # nobody waits for a thread whose start was interrupted by Ctrl-C, so no thread works before all have started
        begin.wait()
        if stop.is_set():
            return
        try:
            results[device] = work(device, _StoppableReporter(progress[device], stop))
        except ToolError as exc:
            results[device] = exc
            progress[device].say(f"given up: {exc}")

    groups = ([name for name in devices if name not in last], [name for name in devices if name in last])
    for group in filter(None, groups):
        with ThreadPoolExecutor(len(group)) as pool:
            try:
                workers = [pool.submit(work_on, device) for device in group]
                begin.set()
                for worker in workers:
                    while not wait([worker], timeout=POLL_S).done:
                        pass
                    worker.result()
            except BaseException:  # Ctrl-C, or a programming error
                stop.set()  # leaving the pool waits until every worker has restored its device
                begin.set()
                raise
    return {device: results[device] for device in devices}
