"""How commands that need PyTorch end when something is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from netadapt.registry import require_torch
from profiler.console import plain_errors


@contextmanager
def needs_torch(after_interrupt: str = "") -> Iterator[None]:
    """`plain_errors`, and a sentence that says what to install where only the profiler is."""
    with plain_errors(after_interrupt):
        require_torch()
        yield
