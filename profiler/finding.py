"""What a check of a table or a device has found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason for doubt."""

    severity: str
    """problem: do not rely on it; warning: know it; note: good to know."""
    what: str
    next_step: str
