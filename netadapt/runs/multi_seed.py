"""A figure over several seeds: its mean and standard deviation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from netadapt.training.types import Metric


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over seeds."""

    mean: float
    deviation: float | None
    """The sample standard deviation, divided by one less than the count; None for a single seed, which has none."""
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The mean and deviation of these values, one for each seed. `ValueError` for no values."""
        if not values:
            raise ValueError("a mean needs at least one value")
        mean = math.fsum(values) / len(values)
        if len(values) == 1:
            return cls(mean, None, 1)
        return cls(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)), len(values))

    @property
    def low(self) -> float:
        """One deviation below the mean."""
        return self.mean - (self.deviation or 0.0)

    @property
    def high(self) -> float:
        """One deviation above the mean."""
        return self.mean + (self.deviation or 0.0)

    def text(self, figure: Metric) -> str:
        """The figure as text: `96.5 ± 0.3 %`, or `96.5 %` for a single seed."""
        if self.deviation is None:
            return figure.text(self.mean)
        value, deviation = (f"{figure.scale * number:.{figure.decimals}f}" for number in (self.mean, self.deviation))
        return f"{value} ± {deviation}" + (f" {figure.unit}" if figure.unit else "")


def of_each(metrics: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """The spread of each figure that every seed has."""
    names = [name for name in metrics[0] if all(name in item for item in metrics)] if metrics else []
    return {name: Spread.of([item[name] for item in metrics]) for name in names}
