"""Findings: results of checking a table or a device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A reason to doubt a table or a device."""

    severity: str
    """problem: results are not reliable; warning: results may be affected; note: for information."""
    what: str
    """The finding as a sentence."""
    next_step: str
    """An action for the user."""
