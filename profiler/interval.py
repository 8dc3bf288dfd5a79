"""A value with its 95 % interval: the one form in which latencies, errors and accuracies are passed on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from device_agents.support.dataclass_json import read_value


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and the ends of its 95 % interval, all in one unit, which the name of the field that holds it tells.

    Both ends are NaN where the interval is not known. `ValueError` for ends that do not enclose the value, and for infinite ones.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        low, high = (self.low, self.high) if self.known else (self.value, self.value)
        if not low <= self.value <= high or not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"not an interval around a value: {self.value} [{self.low}, {self.high}]")

    @classmethod
    def unknown(cls, value: float) -> Self:
        """A value whose interval nobody knows."""
        return cls(value, math.nan, math.nan)

    @classmethod
    def of(cls, plain: Sequence[float]) -> Self:
        """The value and its ends, in this order. `ValueError` for any other number of figures."""
        value, low, high = plain
        return cls(value, low, high)

    @property
    def known(self) -> bool:
        return not (math.isnan(self.low) and math.isnan(self.high))

    @property
    def half_width(self) -> float:
        """The wider side of the interval; NaN where it is not known."""
        return max(self.high - self.value, self.value - self.low)

    def contains(self, other: float) -> bool:
        """Whether another value lies within; False where the interval is not known."""
        return self.low <= other <= self.high

    def overlaps(self, other: Interval) -> bool:
        """Whether the two have a value in common; False where one of them is not known."""
        return self.low <= other.high and other.low <= self.high

    def scaled(self, factor: float) -> Interval:
        """The same in another unit. `factor` is positive."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    def text(self, unit: str) -> str:
        """The value and its ends for people: 3.150 ms [3.048 … 3.252]."""
        if not self.known:
            return f"{self.value:.3f} {unit}, interval not known"
        return f"{self.value:.3f} {unit} [{self.low:.3f} … {self.high:.3f}]"

    def to_dict(self, name: str) -> dict[str, float | None]:
        """`{name, name_low, name_high}` for a flat row of JSON or CSV; ends that are not known are None."""
        low, high = (self.low, self.high) if self.known else (None, None)
        return {name: self.value, f"{name}_low": low, f"{name}_high": high}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], name: str) -> Self:
        """The inverse of `to_dict`. `KeyError` for a missing figure, `ValueError` for what is no interval."""
        value = read_value(float, plain[name])
        low, high = (read_value(float | None, plain[f"{name}_{end}"]) for end in ("low", "high"))
        return cls(value, math.nan if low is None else low, math.nan if high is None else high)
