"""The latency of a model on a quiet device, estimated from raw samples, with a 95 % interval.

Other load only adds time, and does so for seconds at a stretch. The latency of a measurement is therefore the median of its
undisturbed samples, and the latency of a model is the lower quartile over its measurements, which lie in rounds far apart in time.
Slow periods do not reach the lower quartile. The minimum would not do instead: it falls with the number of rounds, which differs
between models. Measurements that are known to be disturbed (profiler.measure.disturbance) are left out if enough others remain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from profiler.interval import Interval
from profiler.protocol.events import Measurement
from profiler.protocol.settings import TimingSettings

QUARTILE = 0.25
RESAMPLES = 400
ENOUGH_ROUNDS = 3
"""With fewer undisturbed measurements, disturbed ones are used as well and the estimate is marked as disturbed."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The latency of a model on a quiet device and the number of measurements behind it. `ValueError` for a negative latency."""

    latency_ms: Interval
    rounds: int
    samples: int
    quiet_rounds: int
    """The number of rounds without a known disturbance."""

    def __post_init__(self) -> None:
        if min(self.latency_ms.value, self.latency_ms.low) < 0:
            raise ValueError(f"not an interval around a latency: {self.latency_ms}")

    @property
    def disturbed(self) -> bool:
        """True if too few rounds were undisturbed. An imported latency has no rounds and is never disturbed."""
        return self.rounds > 0 and self.quiet_rounds < ENOUGH_ROUNDS

    def settled(self, settings: TimingSettings) -> bool:
        """True if the model needs no further rounds: enough were undisturbed and the interval is narrow."""
        return self.quiet_rounds >= settings.quiet_rounds and self.latency_ms.half_width <= self._narrow_ms(settings)

    def rounds_to_settle(self, settings: TimingSettings) -> int:
        """The rounds after which the interval is likely to be narrow, as it narrows with the square root of their number."""
        return math.ceil(self.rounds * (self.latency_ms.half_width / self._narrow_ms(settings)) ** 2)

    def _narrow_ms(self, settings: TimingSettings) -> float:
        return max(settings.settle_ms, settings.settle_percent / 100 * self.latency_ms.value)


def estimate(measurements: Sequence[Measurement]) -> Estimate:
    """The lower quartile of the measurements' latencies and its bootstrap percentile interval over rounds.

    One or two rounds are too few for a bootstrap: the interval is then the range of their samples. `ValueError` if there are none.
    """
    if not measurements:
        raise ValueError("no measurements to estimate from")
    used = trusted(measurements)
    quiet = np.array([measurement.quiet_ms for measurement in used])
    latency_ms = float(np.quantile(quiet, QUARTILE))
    if len(used) < ENOUGH_ROUNDS:
        samples_ms = [value / measurement.loops / 1e6 for measurement in used for value in measurement.samples_ns]
        low_ms, high_ms = min(samples_ms), max(samples_ms)
    else:
        resampled = np.quantile(quiet[_draws(len(quiet))], QUARTILE, axis=1)
        low_ms, high_ms = (float(value) for value in np.quantile(resampled, (0.025, 0.975)))
    samples = sum(len(measurement.samples_ns) for measurement in measurements)
    undisturbed = [measurement for measurement in measurements if not measurement.tags]
    interval_ms = Interval(latency_ms, min(low_ms, latency_ms), max(high_ms, latency_ms))
    return Estimate(interval_ms, len(measurements), samples, len(undisturbed))


def trusted(measurements: Sequence[Measurement]) -> Sequence[Measurement]:
    """The measurements that an estimate uses: the undisturbed ones, or all if these are too few."""
    undisturbed = [measurement for measurement in measurements if not measurement.tags]
    return undisturbed if len(undisturbed) >= ENOUGH_ROUNDS else measurements


@cache
def _draws(count: int) -> NDArray[np.int64]:
    """Indices of shape (resample, measurement). They depend on the count only, so that a journal always gives the same table."""
    return np.random.default_rng(count).integers(0, count, (RESAMPLES, count))
