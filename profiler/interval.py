"""A number with its 95 % interval: the one type for every measured, estimated or predicted quantity."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A value between two ends, in whatever unit the field that holds it names; both ends are NaN where nobody knows them."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        low, high = (self.low, self.high) if self.is_known else (self.value, self.value)
        if not low <= self.value <= high or not math.isfinite(high):
            raise ValueError(f"not an interval around a value: {self}")

    @property
    def is_known(self) -> bool:
        """False where only the value is known, as in tables that others have published."""
        return not (math.isnan(self.low) and math.isnan(self.high))

    @property
    def half_width(self) -> float:
        """Of the wider side; NaN if the ends are not known."""
        return max(self.high - self.value, self.value - self.low)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def scaled(self, factor: float) -> Interval:
        """The same in another unit; the factor is positive."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)
