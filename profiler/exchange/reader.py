"""The common part of all readers of foreign tables: files of limited size, checked numbers, and the rows.

The files are untrusted. An entry that contradicts itself, or a number that no layer can have, is an `ExchangeError`. An entry of a
kind that no LayerSpec describes is skipped and counted; nothing is guessed.
"""

from __future__ import annotations

import hashlib
import math
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from device_agents.support.numbers import is_whole
from device_agents.support.text import decoded, printable
from profiler.errors import ExchangeError, LayerError
from profiler.interval import Interval
from profiler.layers.layer import MOST_MACS, LayerSpec
from profiler.measure.estimate import Estimate

MOST_BYTES = 16_000_000
MOST_ENTRIES = 50_000
MOST_SIZE = 100_000
"""The largest dimension, kernel or stride; larger ones would not fit the columns of a table."""
MOST_MS = 1e7
"""The longest latency, in milliseconds."""
MOST_SAMPLES = 2**31 - 1
NORMAL_95 = 1.96
"""The half width of the 95 % interval of a mean, in standard errors."""
UNKNOWN = math.nan
VARIANCES = ("var", "variance", "latency_var")
DEVIATIONS = ("std", "stdev", "stddev", "std_ms", "latency_std")
"""The names under which tables keep how much single runs differ."""
MOST_REASONS = 20
"""The number of reasons for skipped entries that are recorded one by one."""
SHOWN = 80
"""The number of characters of a foreign text that are shown."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file of a published table."""

    name: str
    """The name without its folder, safe to print."""
    data: bytes

    @property
    def sha256(self) -> str:
        """The SHA-256 of the data, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def text(self) -> str:
        """The data as text. Raises `ExchangeError` if it is neither UTF-8 nor UTF-16."""
        try:
            return decoded(self.data)
        except UnicodeDecodeError as exc:
            raise ExchangeError(f"{self.name} is not a table: it is not UTF-8 text; check that it is the right file") from exc


@dataclass(frozen=True, slots=True)
class ImportedRows:
    """The content of the files of one published table."""

    rows: Mapping[LayerSpec, Estimate]
    entries: int
    """The number of entries in the files."""
    skipped: Mapping[str, int]
    """The number of entries that became no row, by reason."""
    assumptions: tuple[str, ...]
    """Sentences about facts that the format does not contain and that were assumed."""
    statistic: str
    """The kind of its latencies, such as a mean or the best of several."""


@dataclass(slots=True)
class RowCollector:
    """Collects rows, and the reasons for skipped entries, while files are read."""

    rows: dict[LayerSpec, Estimate] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    entries: int = 0

    def count(self) -> None:
        """Count an entry. Raises `ExchangeError` if there are too many."""
        self.entries += 1
        if self.entries > MOST_ENTRIES:
            raise ExchangeError(f"more than {MOST_ENTRIES} entries; import a part of them")

    def skip(self, reason: str) -> None:
        """Count an entry that becomes no row."""
        self.skipped[reason] += 1

    def add(self, layers: Iterable[LayerSpec], estimate: Estimate, same: str = "the same layer again, and no faster") -> None:
        """Add an entry, which may stand for several layers.

        Of equal layers the faster is kept; `same` is the reason for skipping.
        """
        known = [layer for layer in layers if layer in self.rows]
        if known:
            self.skip(same)
        for layer in layers:
            if layer not in self.rows or estimate.latency_ms.value < self.rows[layer].latency_ms.value:
                self.rows[layer] = estimate

    def finish(self, assumptions: Sequence[str], statistic: str) -> ImportedRows:
        """All rows. Raises `ExchangeError` if there are none."""
        if not self.rows:
            reasons = "; ".join(f"{count} {reason}" for reason, count in self.skipped.most_common(3)) or "it has no entries"
            raise ExchangeError(f"nothing to import: {reasons}")
        skipped = dict(self.skipped.most_common(MOST_REASONS))
        rest = self.skipped.total() - sum(skipped.values())
        if rest:
            skipped["others"] = rest
        return ImportedRows(self.rows, self.entries, skipped, tuple(assumptions), statistic)


def read_source(path: Path) -> Source:
    """Read a file. Raises `ExchangeError` if there is no such file, or if it is larger than any published table."""
    name = shown(path.name)
    try:
        if not path.is_file():  # a pipe or a device may never end
            raise ExchangeError(f"there is no file {path}; check the path")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as exc:
        raise ExchangeError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    if len(data) > MOST_BYTES:
        raise ExchangeError(f"{name} is larger than {MOST_BYTES / 1e6:g} MB, which no latency table is; import a part of it")
    return Source(name, data)


def shown(value: object) -> str:
    """A value from a foreign file as a short text that is safe to print, however long or deep the value is."""
    return printable(value if isinstance(value, str) else reprlib.repr(value), SHOWN)


def size(value: Any, label: str) -> int:
    """The value, if it is a whole number that a shape, kernel or stride can have; otherwise raises `ExchangeError`."""
    if not is_whole(value, 1, MOST_SIZE):
        raise ExchangeError(f"{label} must be a whole number from 1 to {MOST_SIZE}, not {_quoted(value)}")
    return value


def milliseconds(value: Any, label: str) -> float:
    """The value as a number, if it is a latency that a layer can have; otherwise raises `ExchangeError`."""
    number = number_of(value, label)
    if not 0 < number <= MOST_MS:
        raise ExchangeError(f"{label} must be a latency above 0 and up to {MOST_MS:g} ms, not {number:g}")
    return number


def number_of(value: Any, label: str) -> float:
    """The value, or the number that its text gives, if it is finite; otherwise raises `ExchangeError`."""
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else UNKNOWN
    except (ValueError, OverflowError):
        number = UNKNOWN
    if not math.isfinite(number):
        raise ExchangeError(f"{label} must be a number, not {_quoted(value)}")
    return number


def _quoted(value: Any) -> str:
    return f"'{shown(value)}'" if isinstance(value, str) else shown(value)


def published_estimate(latency_ms: float, half_width_ms: float = UNKNOWN, samples: int = 0) -> Estimate:
    """A published latency. It has no rounds of ours and, if the half width is unknown (NaN), no interval."""
    if math.isnan(half_width_ms):
        return Estimate(Interval.unknown(latency_ms), rounds=0, samples=samples, quiet_rounds=0)
    low_ms = max(0.0, latency_ms - half_width_ms)
    return Estimate(Interval(latency_ms, low_ms, latency_ms + half_width_ms), rounds=0, samples=samples, quiet_rounds=0)


def variance_of(fields: Mapping[str, Any], label: str) -> float:
    """The variance of single runs in square milliseconds, from a field with it or with the standard deviation; NaN for neither."""
    variances = [number_of(fields[name], f"{label}: {name}") for name in VARIANCES if name in fields]
    deviations = [number_of(fields[name], f"{label}: {name}") for name in DEVIATIONS if name in fields]
    if any(value < 0 for value in (*variances, *deviations)):
        raise ExchangeError(f"{label}: a variance or deviation must not be negative")
    return variances[0] if variances else deviations[0] ** 2 if deviations else UNKNOWN


def make_layer(label: str, make: Callable[..., LayerSpec], *arguments: Any, **options: Any) -> LayerSpec:
    """The layer that `make` returns. Raises `ExchangeError` if the entry contradicts itself or is impossibly large."""
    try:
        layer = make(*arguments, **options)
    except LayerError as exc:
        raise ExchangeError(f"{label} is no layer: {exc}") from exc
    if (layer.macs or 0) > MOST_MACS or layer.activation_bytes > MOST_MACS or layer.weight_bytes > MOST_MACS:
        raise ExchangeError(f"{label} is larger than any layer can be")
    return layer
