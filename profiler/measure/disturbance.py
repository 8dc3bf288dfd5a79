"""What disturbed a build, read off its journal: which measurements are not to be trusted, and how much of the time that was.

A measurement is tagged, never deleted:
  drift      the looks at the reference layer before or after it took longer than on the quiet device
  switched   the kernel took the process off its core during most of its samples
  clock      the processor's clock changed during it, or was below its usual one
  heat       cores were slowed down for their temperature in its round, or the device said by its end that it was too warm
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from profiler.measure.estimate import Measurement

DRIFT_PERCENT = 6.0
"""The reference layer's own spread on a quiet device is two to three per cent."""
CLOCK_PERCENT = 3.0
SWITCHED_PART = 0.5
LIMIT_PERCENT = 10.0
"""A table with more than this part of its rows disturbed says that it was."""


@dataclass(slots=True)
class _Seen:
    """One line of the journal about a measurement, and what surrounded it."""

    line: Mapping[str, Any]
    look: int
    """How many looks at the reference came before it, over the whole journal."""
    life: int
    """Which start of the runner it belongs to."""
    epoch: int
    """How often the table had been refreshed before it."""
    hot: bool
    utc: str | None
    """When the runner was started."""


@dataclass(slots=True)
class Watch:
    """Follows a journal line by line and tells afterwards what disturbed each measurement."""

    _measurements: list[_Seen] = field(default_factory=list)
    _looks: list[tuple[int, int, float]] = field(default_factory=list)
    """(epoch, start of the runner, quiet latency) of each look at the reference."""
    _life: int = 0
    _epoch: int = 0
    _utc: str | None = None
    _throttled: int | None = None
    _hot: bool = False
    _round: int | None = None
    _reference: str | None = None

    def see(self, line: Mapping[str, Any]) -> None:
        match line["event"]:
            case "hello":
                self._life += 1
                self._throttled, self._hot = None, False
                self._utc = line.get("utc")
            case "refresh":
                self._epoch += 1
                dropped = set(line["keys"])
                self._measurements = [seen for seen in self._measurements if seen.line["key"] not in dropped]
            case "round":
                count, warm = line.get("throttled"), bool(line.get("thermal_status"))
                self._hot = warm or (count is not None and self._throttled is not None and count > self._throttled)
                self._throttled = count
                if warm:  # it became so during the round before
                    for seen in self._measurements:
                        seen.hot = seen.hot or seen.line["round"] == self._round
                self._round = line.get("round")
            case "reference":
                self._reference = self._reference or line["key"]
                if line["key"] == self._reference:  # two layers' levels cannot be compared
                    self._looks.append((self._epoch, self._life, _measurement(line, ()).quiet_ms))
            case "measurement":
                self._measurements.append(_Seen(line, len(self._looks), self._life, self._epoch, self._hot, self._utc))

    @property
    def looks_ms(self) -> tuple[float, ...]:
        return tuple(quiet_ms for _, _, quiet_ms in self._looks)

    def measured_utc(self) -> dict[str, str]:
        """When the oldest measurement that counts was made, by key, where the journal tells."""
        dates = [(seen.line["key"], seen.utc) for seen in self._measurements if seen.utc is not None]
        return dict(sorted(dates, key=lambda item: item[1], reverse=True))

    def measurements(self) -> Iterable[tuple[str, Measurement]]:
        """Each measurement's key and the measurement with its tags."""
        usual = {epoch: self._usual(epoch) for epoch in range(self._epoch + 1)}
        for seen in self._measurements:
            yield seen.line["key"], _measurement(seen.line, tuple(self._tags(seen, *usual[seen.epoch])))

    def _usual(self, epoch: int) -> tuple[float | None, float | None]:
        """The quiet device's latency of the reference and its clock: weeks later they need not be what they were."""
        looks = [quiet_ms for when, _, quiet_ms in self._looks if when == epoch]
        clocks = [khz for seen in self._measurements if seen.epoch == epoch for khz in seen.line.get("clock_khz") or () if khz]
        return _low(looks) if len(looks) >= 4 else None, statistics.median(clocks) if clocks else None

    def _tags(self, seen: _Seen, best_ms: float | None, usual_khz: float | None) -> Iterable[str]:
        around = [self._looks[place] for place in (seen.look - 1, seen.look) if 0 <= place < len(self._looks)]
        here = [quiet_ms for _, life, quiet_ms in around if life == seen.life]
        if best_ms is not None and here and max(here) > (1 + DRIFT_PERCENT / 100) * best_ms:
            yield "drift"
        if len(seen.line["switched"]) > SWITCHED_PART * len(seen.line["samples_ns"]):
            yield "switched"
        clock = [khz for khz in seen.line.get("clock_khz") or () if khz]
        if usual_khz is not None and clock and min(clock) < (1 - CLOCK_PERCENT / 100) * usual_khz:
            yield "clock"
        if seen.hot:
            yield "heat"


def _measurement(line: Mapping[str, Any], tags: tuple[str, ...]) -> Measurement:
    return Measurement(line["round"], line["loops"], tuple(line["samples_ns"]), tuple(line["switched"]), tags)


def _low(levels: Sequence[float]) -> float:
    """What the quiet device does: the lower tenth, so that one lucky look makes no standard."""
    return statistics.quantiles(levels, n=10, method="inclusive")[0]


def tag_counts(measurements: Iterable[Measurement]) -> dict[str, int]:
    """How many measurements carry each tag, and `measurements` in all."""
    counts: Counter[str] = Counter()
    for measurement in measurements:
        counts["measurements"] += 1
        counts.update(measurement.tags)
    return dict(counts)
