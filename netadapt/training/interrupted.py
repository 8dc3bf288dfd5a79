"""A training on disk, so that one that was interrupted goes on where it was, and ends with the same weights."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError  # torch raises it for a damaged file; nothing is ever unpickled
from typing import Any

import torch

from device_agents.support.atomic import write_whole
from netadapt.errors import RunError

EVERY_S = 60.0
_UNREADABLE = (OSError, EOFError, UnpicklingError, RuntimeError, ValueError, LookupError, TypeError, AttributeError)


@dataclass(slots=True)
class Interrupted:
    """The file of an unfinished training: plain tensors, numbers and texts."""

    path: Path
    what: str
    """Everything that shapes the training, as text; a file of another training is left alone until it is replaced."""
    every_s: float = EVERY_S
    """Seconds between two savings."""
    _saved_s: float = field(default_factory=time.monotonic, init=False)

    def load(self) -> Mapping[str, Any] | None:
        """The state of this training; None if there is none, or the file is damaged."""
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)
        except _UNREADABLE:
            return None
        return found["state"] if isinstance(found, Mapping) and found.get("what") == self.what else None

    @property
    def is_due(self) -> bool:
        """True if the last saving is longer ago than `every_s`."""
        return time.monotonic() - self._saved_s >= self.every_s

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file atomically. `RunError` if it cannot be written."""
        data = io.BytesIO()
        torch.save({"what": self.what, "state": state}, data)
        write_whole(self.path, data.getvalue(), RunError)
        self._saved_s = time.monotonic()

    def done(self) -> None:
        """Remove the file, as the training has ended and its weights are saved."""
        self.path.unlink(missing_ok=True)
