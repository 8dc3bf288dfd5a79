"""The host at the other end of standard input and output."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import Any

PATIENCE_S = 5.0
"""How long to wait for the host's acknowledgement of a result before the next is measured without it."""


def told(exc: BaseException) -> str:
    """An exception in one line, with its cause if it has one."""
    cause = f" ({type(exc.__cause__).__name__}: {exc.__cause__})" if exc.__cause__ else ""
    return " ".join(f"{type(exc).__name__}: {exc}{cause}".split())[:500]


def say(event: str, **values: Any) -> None:
    sys.stdout.write(json.dumps(dict(values, event=event), separators=(",", ":"), allow_nan=False) + "\n")
    sys.stdout.flush()


class Host:
    """The process at the other end of standard input. Each byte from there acknowledges one result."""

    def __init__(self, acknowledges: bool) -> None:
        self.acknowledges, self.owed = acknowledges, 0

    def told(self) -> None:
        """Count a result that was sent."""
        self.owed += int(self.acknowledges)

    def has_everything(self) -> bool:
        self.listen(0.0)
        return not self.owed

    def wait(self) -> None:
        """Wait until all results are acknowledged, but no longer than PATIENCE_S: the host may have missed a line."""
        until = time.monotonic() + PATIENCE_S
        while self.owed and time.monotonic() < until:
            self.listen(until - time.monotonic())
        self.owed = 0

    def listen(self, wait_s: float) -> None:
        """Read acknowledgements for up to `wait_s`. Ends this process if the host has closed standard input."""
        readable, _, _ = select.select([sys.stdin], [], [], max(0.0, wait_s))
        if readable:
            came = os.read(sys.stdin.fileno(), 4096)
            if not came:
                raise SystemExit("the host is gone")
            self.owed = max(0, self.owed - len(came))
