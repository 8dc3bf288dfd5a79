"""What disturbed a build: which measurements are not to be trusted, and how much of the time that was.

A measurement is tagged, never deleted:
  drift      the reference layer took longer, before or after it, than on the quiet device
  switched   the kernel took the process off its core during most of its samples
  clock      the processor's clock changed during it, or was below its usual one
  heat       cores were slowed down for their temperature in its round, or the device said by its end that it was too warm
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from profiler.protocol.events import Hello, JournalEvent, Measurement, Reference, Refresh, Round

DRIFT_PERCENT = 6.0
"""The reference layer's own spread on a quiet device is two to three per cent."""
CLOCK_PERCENT = 3.0
SWITCHED_PART = 0.5
LIMIT_PERCENT = 10.0
"""A table with more than this part of its rows disturbed says that it was."""
ENOUGH_REFERENCES = 4
"""With fewer measurements of the reference layer nobody knows what it takes on the quiet device."""


@dataclass(slots=True)
class _Seen:
    """One measurement and what surrounded it."""

    measurement: Measurement
    references: int
    """How many measurements of the reference layer came before it, over the whole journal."""
    start: int
    """Which start of the runner it belongs to."""
    epoch: int
    """How often the table had been refreshed before it."""
    hot: bool
    utc: str | None
    """When the runner was started."""


@dataclass(frozen=True, slots=True)
class _Usual:
    """What the quiet device does: weeks later, after a refresh, that need not be what it was."""

    reference_ms: float | None
    clock_khz: float | None


@dataclass(slots=True)
class DisturbanceDetector:
    """Follows the events of a build one by one and tells afterwards what disturbed each measurement.

    The work for an event does not grow with the number of events before it.
    """

    _seen: dict[str, list[_Seen]] = field(default_factory=dict)
    _last_round: list[_Seen] = field(default_factory=list)
    """The measurements of the round that goes on."""
    _references: list[tuple[int, int, float]] = field(default_factory=list)
    """(epoch, start of the runner, quiet latency in ms) of each measurement of the reference layer."""
    _start: int = 0
    _epoch: int = 0
    _utc: str | None = None
    _throttled: int | None = None
    _hot: bool = False
    _reference: str | None = None

    def see(self, event: JournalEvent) -> None:
        match event:
            case Hello():
                self._start += 1
                self._throttled, self._hot = None, False
                self._utc = event.utc
            case Refresh():
                self._epoch += 1
                for model in event.models:
                    self._seen.pop(model, None)
            case Round():
                warm = bool(event.thermal_status)
                slowed = event.throttled is not None and self._throttled is not None and event.throttled > self._throttled
                self._hot, self._throttled = warm or slowed, event.throttled
                if warm:  # it became so during the round before
                    for seen in self._last_round:
                        seen.hot = True
                # a round that a crash broke off goes on under its number
                if self._last_round and self._last_round[-1].measurement.round != event.round:
                    self._last_round = []
            case Reference():
                self._reference = self._reference or event.model
                if event.model == self._reference:  # the levels of two layers cannot be compared
                    self._references.append((self._epoch, self._start, event.quiet_ms))
            case Measurement():
                seen = _Seen(event, len(self._references), self._start, self._epoch, self._hot, self._utc)
                self._seen.setdefault(event.model, []).append(seen)
                self._last_round.append(seen)

    @property
    def reference(self) -> str | None:
        """The key of the reference layer, once it has been measured."""
        return self._reference

    @property
    def references_ms(self) -> tuple[float, ...]:
        """The quiet latency of each measurement of the reference layer."""
        return tuple(quiet_ms for _, _, quiet_ms in self._references)

    def count(self, model: str) -> int:
        """How many measurements of a model count."""
        return len(self._seen.get(model, ()))

    def measured_utc(self) -> dict[str, str]:
        """When the oldest measurement of each model that counts was made, where the journal tells."""
        dates = {model: min((seen.utc for seen in found if seen.utc), default=None) for model, found in self._seen.items()}
        return {model: utc for model, utc in dates.items() if utc is not None}

    def tagged(self) -> dict[str, tuple[Measurement, ...]]:
        """All measurements that count, by model, with what disturbed them."""
        usual = {epoch: self._usual(epoch) for epoch in range(self._epoch + 1)}
        return {model: tuple(self._tagged(seen, usual[seen.epoch]) for seen in found) for model, found in self._seen.items()}

    def _usual(self, epoch: int) -> _Usual:
        references = [quiet_ms for when, _, quiet_ms in self._references if when == epoch]
        clocks = [
            khz
            for found in self._seen.values()
            for seen in found
            if seen.epoch == epoch
            for khz in seen.measurement.clock_khz or ()
            if khz
        ]
        reference_ms = lower_tenth(references) if len(references) >= ENOUGH_REFERENCES else None
        return _Usual(reference_ms, statistics.median(clocks) if clocks else None)

    def _tagged(self, seen: _Seen, usual: _Usual) -> Measurement:
        tags = tuple(self._tags(seen, usual))
        return replace(seen.measurement, tags=tags) if tags else seen.measurement

    def _tags(self, seen: _Seen, usual: _Usual) -> Iterator[str]:
        measurement = seen.measurement
        around = [self._references[place] for place in (seen.references - 1, seen.references) if 0 <= place < len(self._references)]
        here_ms = [quiet_ms for _, start, quiet_ms in around if start == seen.start]
        if usual.reference_ms is not None and here_ms and max(here_ms) > (1 + DRIFT_PERCENT / 100) * usual.reference_ms:
            yield "drift"
        if len(measurement.switched) > SWITCHED_PART * len(measurement.samples_ns):
            yield "switched"
        clock = [khz for khz in measurement.clock_khz or () if khz]
        if usual.clock_khz is not None and clock and min(clock) < (1 - CLOCK_PERCENT / 100) * usual.clock_khz:
            yield "clock"
        if seen.hot:
            yield "heat"


def lower_tenth(levels: Sequence[float]) -> float:
    """The level that a tenth of them lie below: what the quiet device does, without one lucky measurement making the standard."""
    return statistics.quantiles(levels, n=10, method="inclusive")[0]


def tag_counts(measurements: Iterable[Measurement]) -> Mapping[str, int]:
    """How many measurements carry each tag, and `measurements` in all."""
    counts: Counter[str] = Counter()
    for measurement in measurements:
        counts["measurements"] += 1
        counts.update(measurement.tags)
    return dict(counts)
