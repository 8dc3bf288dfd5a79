"""The bias of predictions, learned from measured winners: the ratio of measured to predicted latency, which corrects later targets.

A single measurement is noisy, so the bias is smoothed: it is the geometric mean of the bias so far and the newest ratio.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from netadapt.errors import NetAdaptError
from netadapt.resources import Budget
from profiler.interval import Interval

SMOOTHING = 0.5
"""The weight of the newest ratio in the geometric mean."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A measured and a predicted amount of one resource of a winner, with 95 % intervals, in the resource's unit."""

    measured: Interval
    predicted: Interval

    def __post_init__(self) -> None:
        measured, predicted = self.measured.value, self.predicted.value
        if not (measured > 0 and predicted > 0):
            raise NetAdaptError(
                f"measured and predicted amounts must be above 0 to be compared, got {measured:g} and {predicted:g}; measure again"
            )

    @property
    def ratio(self) -> float:
        """Measured over predicted: above 1 where the network takes more than predicted."""
        return self.measured.value / self.predicted.value

    @property
    def missed(self) -> bool:
        """True if the measured value lies outside the 95 % interval of the prediction; False if that interval is not known."""
        return self.predicted.known and not self.predicted.contains(self.measured.value)

    def sentence(self, budget: Budget) -> str:
        """The two amounts of the budget's resource as text: pixel: measured 130 ms, predicted 100 ms (95 ms to 105 ms), +30.0 %."""
        text = budget.amount_text
        interval = f"{text(self.predicted.low)} to {text(self.predicted.high)}"
        both = f"measured {text(self.measured.value)}, predicted {text(self.predicted.value)}"
        return f"{budget.name}: {both} ({interval}), {100 * (self.ratio - 1):+.1f} %"


def updated_bias(bias: Mapping[str, float], checks: Mapping[str, Checked]) -> dict[str, float]:
    """The bias of each budget, by its name, after these measurements; the first ratio of a budget is taken as it is."""
    now = dict(bias)
    for name, check in checks.items():
        before = bias.get(name)
        now[name] = check.ratio if before is None else before ** (1 - SMOOTHING) * check.ratio**SMOOTHING
    return now
