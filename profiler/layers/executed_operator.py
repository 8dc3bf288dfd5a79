"""An operator as a runtime reports it, with its name, shapes and times; what it means for our layers is read elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MOST_US = 10**10
"""No operator takes hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutedOperator:
    """An operator that a runtime executes for a model, as the runtime itself names it, and its time inside the running network."""

    name: str
    op: str
    partition: str
    """The execution provider or delegate that runs it; `interpreter` where no delegate does."""
    index: int
    inputs: tuple[Mapping[str, tuple[int, ...]], ...] = ()
    """Type and shape of each tensor that it reads, weights included; empty where the runtime does not tell."""
    outputs: tuple[Mapping[str, tuple[int, ...]], ...] = ()
    samples_us: tuple[int, ...] = ()
    """Microseconds in each profiled inference, the profiler's own work included, rounded down by the runtime."""

    def __post_init__(self) -> None:
        if self.samples_us and not (min(self.samples_us) >= 0 and max(self.samples_us) < MOST_US):
            raise ValueError(f"{self.name!r:.60} cannot take {min(self.samples_us)} to {max(self.samples_us)} us")
