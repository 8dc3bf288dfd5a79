"""Errors of the commands that need PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from netadapt.registry import require_torch
from profiler.console import plain_errors


@contextmanager
def needs_torch(after_interrupt: str = "", kept: Sequence[Path] = ()) -> Iterator[None]:
    """`plain_errors`, and an error with the install command if PyTorch is not installed."""
    with plain_errors(after_interrupt, kept):
        require_torch()
        yield
