"""From raw samples to a latency: the quiet machine's, with an interval.

A shared machine only ever adds time, and does so for seconds on end. So the fast side of the samples tells most: the 5th
percentile within each visit, the lowest of the visits over all rounds. That minimum is trusted when other rounds confirm it: its
interval is the exact bootstrap interval of a minimum, which needs several rounds to agree before it is narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profiler.settings import TimingSettings


@dataclass(frozen=True, slots=True)
class Visit:
    """One model, one round: raw samples as they came."""

    round: int
    loops: int
    """Inferences in each sample."""
    samples_ns: tuple[int, ...]
    switches: int = 0
    """How often the kernel took the process off its core meanwhile."""

    def __post_init__(self) -> None:
        if not self.samples_ns or min(self.samples_ns) <= 0 or self.loops < 1:
            raise ValueError(f"a visit needs positive samples, got {self.loops} loops and {self.samples_ns[:3]}")

    @property
    def quiet_ms(self) -> float:
        """Milliseconds of one inference at the 5th percentile of the visit."""
        return float(np.percentile(self.samples_ns, 5)) / self.loops / 1e6


@dataclass(frozen=True, slots=True)
class Estimate:
    """A latency in milliseconds with its 95 % interval."""

    latency_ms: float
    latency_ms_low: float
    latency_ms_high: float
    rounds: int
    samples: int

    def __post_init__(self) -> None:
        if not 0 <= self.latency_ms_low <= self.latency_ms <= self.latency_ms_high or not math.isfinite(self.latency_ms_high):
            raise ValueError(f"not an interval around a latency: {self}")

    @property
    def half_width_ms(self) -> float:
        return self.latency_ms_high - self.latency_ms

    def settled(self, settings: TimingSettings) -> bool:
        """Narrow enough to stop measuring."""
        return self.half_width_ms <= max(settings.settle_ms, settings.settle_percent / 100 * self.latency_ms)


def estimate(visits: Sequence[Visit]) -> Estimate:
    """The lowest of the visits' quiet latencies and the bootstrap interval of that minimum.

    Resampling n rounds with replacement, the minimum exceeds the j-th lowest with probability ((n - j) / n)^n; the interval
    reaches to the first j for which that falls below 2.5 %, and as far below the minimum as above it. With one or two rounds
    nothing can be said from their agreement: the interval is then the whole spread of the samples.
    """
    if not visits:
        raise ValueError("no visits to estimate from")
    quiet = sorted(visit.quiet_ms for visit in visits)
    n = len(quiet)
    samples = sum(len(visit.samples_ns) for visit in visits)
    if n < 3:
        high = max(max(visit.samples_ns) / visit.loops / 1e6 for visit in visits)
    else:
        high = next(quiet[j - 1] for j in range(1, n + 1) if ((n - j) / n) ** n <= 0.025)
    return Estimate(quiet[0], max(0.0, 2 * quiet[0] - high), high, n, samples)
