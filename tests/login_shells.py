"""A login shell of this machine as the other end of a link."""

from __future__ import annotations

import os
import select
import subprocess
from pathlib import Path

from device_agents.remote import RemoteAgent, Source


class ShellAgent(RemoteAgent):
    """A login shell of this machine as the other end; `before` is what its start-up file does."""

    default_folder = "$HOME"

    def __init__(self, shell: list[str], before: str = "") -> None:
        super().__init__("ssh:here")
        self._shell, self._before = shell, before
        self.lines: list[str] = []

    def _connect(self) -> None: ...

    def _disconnect(self) -> None: ...

    def _upload(self, data: bytes, path: str, timeout_s: float) -> None:
        Path(path).write_bytes(data)

    def _open(self, line: str) -> ProcessChannel:
        self.lines.append(line)
        return ProcessChannel([*self._shell, f"{self._before}{line}"])


class ProcessChannel:
    """Its outputs and input; what it runs goes on when the channel is closed, as it may over ssh."""

    def __init__(self, argv: list[str]) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._process = subprocess.Popen(argv, **pipes, start_new_session=True)
        assert self._process.stdout is not None and self._process.stderr is not None
        self._outputs = {self._process.stdout: Source.OUT, self._process.stderr: Source.ERR}

    def receive(self, timeout_s: float) -> tuple[Source, bytes]:
        while self._outputs:
            ready = select.select(list(self._outputs), [], [], timeout_s)[0]
            if not ready:
                raise TimeoutError
            if data := os.read(ready[0].fileno(), 65536):
                return self._outputs[ready[0]], data
            self._outputs.pop(ready[0])
        return Source.END, b""

    def send(self, data: bytes) -> None: ...

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()
