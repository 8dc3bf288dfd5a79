"""The pipes of one `ssh` process, read and written without threads, and the reason of its end."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time

from device_agents.remote import Source


class SshChannel:
    """One `ssh` process and its three pipes."""

    def __init__(self, process: subprocess.Popen[bytes], master: SshChannel | None) -> None:
        self._process, self._master = process, master
        self._selector = selectors.DefaultSelector()
        for pipe, source in ((process.stderr, Source.ERR), (process.stdout, Source.OUT)):
            assert pipe is not None
            self._selector.register(pipe, selectors.EVENT_READ, source)

    def receive(self, timeout_s: float) -> tuple[Source, bytes]:
        while self._selector.get_map():
            for key in self._ready(timeout_s):
                if data := self._read(key):
                    return key.data, data
        return (Source.ERR, words) if (words := self._last_words()) else (Source.END, b"")

    def _last_words(self) -> bytes:
        """Why the connection was lost, if it was: only the master knows, and it is returned once."""
        master, self._master = self._master, None
        if master is None or self.code() != 255 or master.alive(settle_s=1.0):
            return b""
        return master.errors().encode()

    def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            os.write(self._process.stdin.fileno(), data)

    def feed(self, data: bytes, timeout_s: float) -> tuple[int, str]:
        """Write to standard input, close it and wait for the end. Returns the exit code and standard error."""
        deadline = time.monotonic() + timeout_s
        rest, errors = memoryview(data), b""
        stdin = self._process.stdin
        assert stdin is not None
        os.set_blocking(stdin.fileno(), False)
        self._selector.register(stdin, selectors.EVENT_WRITE)
        while self._selector.get_map():
            for key in self._ready(deadline - time.monotonic()):
                if key.fileobj is stdin:
                    rest = self._write(key, rest)
                elif key.data is Source.ERR:
                    errors += self._read(key)
                else:
                    self._read(key)
        code = self._wait(deadline - time.monotonic())
        return code, (errors + self._last_words()).decode(errors="replace")

    def alive(self, *, settle_s: float = 0.0) -> bool:
        """Whether the process still runs, after waiting up to `settle_s` seconds for its end."""
        try:
            self._wait(settle_s)
        except TimeoutError:
            return True
        return False

    def code(self) -> int:
        """The exit code, once the pipes have ended: 255 for a fault of ssh itself, else the command's; -1 if it still runs."""
        return -1 if self.alive(settle_s=1.0) else int(self._process.returncode)

    def errors(self) -> str:
        """What was printed to standard error since it was last read."""
        errors = b""
        with contextlib.suppress(TimeoutError):
            while (received := self.receive(0.0))[0] is not Source.END:
                errors += received[1] if received[0] is Source.ERR else b""
        return errors.decode(errors="replace")

    def close(self) -> None:
        """End the process and its children, such as a jump host's. The command on the board sees its standard input closed."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            if self.alive(settle_s=2.0):
                self._signal(signal.SIGKILL)
                self._process.wait()
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.killpg(self._process.pid, number)

    def _wait(self, timeout_s: float) -> int:
        try:
            return self._process.wait(max(0.0, timeout_s))
        except subprocess.TimeoutExpired:
            raise TimeoutError from None

    def _ready(self, timeout_s: float) -> list[selectors.SelectorKey]:
        if ready := self._selector.select(max(0.0, timeout_s)):
            return [key for key, _ in ready]
        raise TimeoutError

    def _read(self, key: selectors.SelectorKey) -> bytes:
        data = os.read(key.fd, 65536)
        if not data:
            self._selector.unregister(key.fileobj)
        return data

    def _write(self, key: selectors.SelectorKey, rest: memoryview) -> memoryview:
        """Write a part; returns what is left. If the reader is gone, nothing is left: its exit code will say why."""
        try:
            rest = rest[os.write(key.fd, rest[:65536]) :]
        except BrokenPipeError:
            rest = rest[:0]
        if not rest:
            self._selector.unregister(key.fileobj)
            assert self._process.stdin is not None
            self._process.stdin.close()
        return rest
