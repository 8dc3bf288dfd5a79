"""What measuring the winners says about the table: how many times as long a network really takes as was predicted.

A single measurement is noisy, so the factor that later targets are corrected by is smoothed: the geometric mean of what it was and
what was found last. A prediction that missed by more than its own interval is told all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from netadapt.errors import NetAdaptError
from netadapt.resources import Budget
from profiler.interval import Interval

SMOOTHING = 0.5
"""The weight of the newest ratio."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One resource of a winner as it was measured and as it had been predicted, with 95 % intervals, in the resource's unit."""

    measured: Interval
    predicted: Interval

    def __post_init__(self) -> None:
        measured, predicted = self.measured.value, self.predicted.value
        if not (measured > 0 and predicted > 0):
            raise NetAdaptError(f"{measured} was measured and {predicted} predicted, which cannot be compared")

    @property
    def ratio(self) -> float:
        """Above 1 where the network takes more than predicted."""
        return self.measured.value / self.predicted.value

    @property
    def missed(self) -> bool:
        """Whether the measured value lies outside the interval of the prediction, where that is known."""
        return self.predicted.known and not self.predicted.contains(self.measured.value)

    def sentence(self, budget: Budget) -> str:
        """The measured and the predicted amount of this budget's resource, for a warning."""
        text = budget.amount_text
        interval = f"{text(self.predicted.low)} to {text(self.predicted.high)}"
        both = f"measured {text(self.measured.value)}, predicted {text(self.predicted.value)}"
        return f"{budget.name}: {both} ({interval}), {100 * (self.ratio - 1):+.1f} %"


def carried_on(bias: Mapping[str, float], checks: Mapping[str, Checked]) -> dict[str, float]:
    """The factors after these measurements; the first of a resource counts whole, as there is nothing to smooth it with."""
    now = dict(bias)
    for name, check in checks.items():
        before = bias.get(name)
        now[name] = check.ratio if before is None else before ** (1 - SMOOTHING) * check.ratio**SMOOTHING
    return now
