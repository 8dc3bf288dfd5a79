"""This machine as a device. The runner is a process with an interpreter of its own here too, as on every other device."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from device_agents.agent import LONGEST_LINE, Attached, CommandResult, Options, named
from device_agents.errors import ANOTHER_FOLDER, CommandTimedOut, DeviceError, LineTooLong, StoreFailed
from device_agents.support.locks import locked

PREFIX = "netadapt-profiler-"
OWNER = "owner.lock"
"""A file in the folder, locked by the process that made the folder: one left behind by `kill -9` is not locked."""
YOUNG_S = 60.0
"""A folder younger than this is left alone, because its owner may not have locked it yet."""


class LocalAgent:
    """Runs each command in a process group of its own, so that a kill reaches its children too."""

    shared = False
    has_conditions = True
    runner: str | None = None
    address_forms: tuple[str, ...] = ("local",)

    def __init__(self, address: str = "local", options: Options | None = None) -> None:
        self.address, self._options = address, options or Options()
        self._folder: Path | None = None
        self._owner: int | None = None

    @classmethod
    def attached(cls) -> Sequence[Attached]:
        return [Attached("local", "this machine")]

    def __enter__(self) -> Self:
        _remove_abandoned_folders(self._parent)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.clean()

    def reconnect(self) -> None:
        """Do nothing: this machine can always be reached."""

    @property
    def _parent(self) -> Path:
        named = self._options.folder or tempfile.gettempdir()
        return Path.home() / named[2:] if named.startswith("~/") else Path(named)

    def clean(self) -> int:
        """Remove the files of this session; those of earlier ones are gone already."""
        if self._folder is None:
            return 0
        # nothing is in it if what clears temporary files has removed it
        size = sum(path.stat().st_size for path in self._folder.glob("*"))
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._owner is not None:
            os.close(self._owner)
        self._folder = self._owner = None
        return size

    def interpreter(self) -> str:
        return sys.executable

    def store(self, files: Mapping[str, bytes]) -> str:
        path = self._parent
        try:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=path))
                self._owner = locked(self._folder / OWNER)
            for name, data in files.items():
                path = self._folder / name
                if not path.exists():
                    path.write_bytes(data)
                    path.chmod(0o755)
        except OSError as exc:
            raise StoreFailed(f"{path} cannot be written: {exc.strerror or exc}; make room, or {ANOTHER_FOLDER}") from exc
        return str(self._folder)

    def run(self, argv: Sequence[str], *, timeout_s: float) -> CommandResult:
        process = _start(argv)
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as exc:
            raise CommandTimedOut(f"`{named(argv)}` did not end within {timeout_s:g} s on {self.address}; it was killed") from exc
        finally:
            _kill(process)
        return CommandResult(tuple(argv), process.returncode, stdout, stderr)

    @contextmanager
    def stream(self, argv: Sequence[str], *, silence_s: float) -> Iterator[LocalStream]:
        process = _start(argv)
        try:
            yield LocalStream(process, silence_s)
        finally:
            _kill(process)


class LocalStream:
    """The lines of a running child. Threads read both of its pipes, so that neither fills up and blocks it."""

    def __init__(self, process: subprocess.Popen[str], silence_s: float) -> None:
        self._process, self._silence_s = process, silence_s
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._errors: list[str] = []
        self._drains = [threading.Thread(target=drain, daemon=True) for drain in (self._drain_lines, self._drain_errors)]
        for thread in self._drains:
            thread.start()

    def _drain_lines(self) -> None:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline(LONGEST_LINE):
            self._lines.put(line)
            if len(line) == LONGEST_LINE:
                return
        self._lines.put(None)

    def _drain_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._errors = [*self._errors[-50:], line]

    def __iter__(self) -> Iterator[str]:
        while True:
            try:
                line = self._lines.get(timeout=self._silence_s)
            except queue.Empty:
                raise CommandTimedOut(f"the runner printed nothing for {self._silence_s:g} s; it was killed") from None
            if line is None:
                self._process.wait()
                self._drains[1].join(timeout=1)
                return
            if len(line) == LONGEST_LINE:
                raise LineTooLong(f"the runner printed {LONGEST_LINE >> 20} MiB without ending the line; it was killed")
            yield line

    def tell(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            os.write(self._process.stdin.fileno(), data)

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    @property
    def stderr(self) -> str:
        return "".join(self._errors)


def _remove_abandoned_folders(parent: Path) -> None:
    """Remove the folders of processes that were killed."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            if time.time() - folder.stat().st_mtime < YOUNG_S:
                continue
            lock = locked(folder / OWNER, flags=0)
        except OSError:
            continue  # its owner is at work, has just removed it, or is another user
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _start(argv: Sequence[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError as exc:
        raise DeviceError(f"there is no program {argv[0]!r} on this machine; give another with --python") from exc
    except OSError as exc:
        where = Path(argv[0]).parent
        ours = where.name.startswith(PREFIX) and exc.errno == errno.EACCES
        step = f"{where.parent} may be mounted noexec: {ANOTHER_FOLDER}" if ours else "give another program with --python"
        raise DeviceError(f"{argv[0]!r} cannot be run on this machine: {exc.strerror or exc}; {step}") from exc


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill the child and everything it started, and collect its exit code."""
    try:
        os.getpgid(process.pid)
        reused = process.returncode is not None
    except ProcessLookupError:
        reused = False
    if not reused:
        # Until the child is collected, its id is its own. After that only processes that it started can be in the group of that id:
        # as long as one of them is, the kernel gives the id to no other process.
        with contextlib.suppress(ProcessLookupError):  # nothing that it started is left
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
