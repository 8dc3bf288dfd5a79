"""A training on disk, so that one that was interrupted goes on where it was, and ends with the same weights."""

from __future__ import annotations

import io
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from device_agents.support.atomic import write_whole
from netadapt.errors import RunError
from netadapt.training.checkpoint import UNREADABLE

EVERY_S = 60.0


@dataclass(slots=True)
class Interrupted:
    """The file of an unfinished training: plain tensors, numbers and texts."""

    path: Path
    what: str
    """Everything that shapes the training, as text; a file of another training is left alone until it is replaced."""
    every_s: float = EVERY_S
    """Seconds between two savings."""
    _begun_s: float = field(default_factory=time.monotonic, init=False)
    """When this training would have begun, had it not been interrupted."""
    _saved_s: float = field(default_factory=time.monotonic, init=False)

    def load(self) -> Mapping[str, Any] | None:
        """The state of this training; None if there is none, or the file is damaged. The time of the training begins here."""
        self._begun_s = time.monotonic()
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)
        except UNREADABLE:
            return None
        if not isinstance(found, Mapping) or found.get("what") != self.what:
            return None
        self._begun_s -= found["seconds"]
        state: Mapping[str, Any] = found["state"]
        return state

    @property
    def seconds(self) -> float:
        """How long the training has taken, without the time between an interrupt and what goes on."""
        return time.monotonic() - self._begun_s

    @property
    def is_due(self) -> bool:
        """True if the last saving is longer ago than `every_s`."""
        return time.monotonic() - self._saved_s >= self.every_s

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file atomically. `RunError` if it cannot be written."""
        data = io.BytesIO()
        torch.save({"what": self.what, "seconds": self.seconds, "state": state}, data)
        write_whole(self.path, data.getvalue(), RunError)
        self._saved_s = time.monotonic()

    @contextmanager
    def pressed(self) -> Iterator[Callable[[], bool]]:
        """Inside the with statement Ctrl-C only makes the function that is yielded true; a second one interrupts at once."""
        presses: list[int] = []

        def press(number: int, _frame: object) -> None:
            if presses:
                raise KeyboardInterrupt
            presses.append(number)

        if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            yield lambda: False  # only the main thread may handle signals
            return
        before = signal.signal(signal.SIGINT, press)
        try:
            yield lambda: bool(presses)
        finally:
            signal.signal(signal.SIGINT, before)

    def done(self) -> None:
        """Remove the file, as the training has ended and its weights are saved."""
        self.path.unlink(missing_ok=True)
