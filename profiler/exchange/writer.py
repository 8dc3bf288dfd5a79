"""The result of writing a table in a foreign format."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class ExportedTable:
    """A table as the text of a foreign format."""

    text: str = ""
    """The content of the file."""
    written: int = 0
    """The number of layers in it."""
    left_out: Counter[str] = field(default_factory=Counter)
    """The number of layers that the format cannot represent, by reason."""
    notes: list[str] = field(default_factory=list)
    """Sentences about what the format does not say about the layers in it."""

    def leave_out(self, reason: str) -> None:
        """Count a layer that the format cannot represent."""
        self.left_out[reason] += 1
