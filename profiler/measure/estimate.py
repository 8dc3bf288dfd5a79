"""From raw samples to a latency: the quiet device's, with an interval.

A shared machine only ever adds time, and does so for seconds on end. So a measurement's latency is the median of its undisturbed
samples, and a model's the lower quartile of its measurements, which lie in rounds far apart in time: slow spells do
not reach it, and it is not one lucky measurement either, which for models with many rounds would be luckier than for those with
few. Measurements that something is known to have disturbed (profiler.measure.disturbance) are left out where enough others remain.
"""

from __future__ import annotations

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
"""With fewer undisturbed measurements the disturbed ones have to do, and the estimate says so."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The latency of a model on a quiet device, and what it rests on. `ValueError` for a negative latency."""

    latency_ms: Interval
    rounds: int
    samples: int
    quiet_rounds: int
    """How many of the rounds went undisturbed."""

    def __post_init__(self) -> None:
        if min(self.latency_ms.value, self.latency_ms.low) < 0:
            raise ValueError(f"not an interval around a latency: {self.latency_ms}")

    @property
    def disturbed(self) -> bool:
        """Too few rounds went undisturbed to say what the quiet device does. Of what others measured no round is known."""
        return self.rounds > 0 and self.quiet_rounds < ENOUGH_ROUNDS

    def settled(self, settings: TimingSettings) -> bool:
        """Undisturbed and narrow enough to stop measuring."""
        narrow_ms = max(settings.settle_ms, settings.settle_percent / 100 * self.latency_ms.value)
        return self.quiet_rounds >= settings.quiet_rounds and self.latency_ms.half_width <= narrow_ms


def estimate(measurements: Sequence[Measurement]) -> Estimate:
    """The lower quartile of the measurements' quiet latencies and its bootstrap percentile interval over rounds.

    With one or two rounds nothing can be said from their agreement: the interval is then the whole spread of the samples.
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
    """The undisturbed ones, or all where these are too few."""
    undisturbed = [measurement for measurement in measurements if not measurement.tags]
    return undisturbed if len(undisturbed) >= ENOUGH_ROUNDS else measurements


@cache
def _draws(count: int) -> NDArray[np.int64]:
    """(resample, measurement): equal draws for equal numbers of measurements, so that a journal always gives the same table."""
    return np.random.default_rng(count).integers(0, count, (RESAMPLES, count))
