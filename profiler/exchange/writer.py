"""What all writers of foreign tables share: the text, and what was left out of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Writing:
    """A table in a foreign form. `text` is the file."""

    text: str = ""
    written: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Layers that the form cannot hold, by reason."""
    notes: list[str] = field(default_factory=list)
    """What the form cannot say of those that it holds."""

    def leave_out(self, reason: str) -> None:
        self.left_out[reason] += 1
