"""What all readers of foreign tables share: files of bounded size, checked numbers, and the rows they end in.

Whatever such a file says is data to be judged: an entry that contradicts itself, or a number that no layer has, is an
`ExchangeError`; an entry of a kind that we have no layer for is left out and counted, never guessed at.
"""

from __future__ import annotations

import hashlib
import math
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from device_agents.support.numbers import is_whole
from device_agents.support.text import printable
from profiler.errors import ExchangeError, LayerError
from profiler.layers.layer import MOST_MACS, LayerSpec
from profiler.measure.estimate import Estimate

MOST_BYTES = 16_000_000
MOST_ENTRIES = 50_000
MOST_SIZE = 100_000
"""Of one dimension, kernel or stride; beyond it sizes would not fit the columns of a table."""
MOST_MS = 1e7
MOST_SAMPLES = 2**31 - 1
NORMAL_95 = 1.96
"""Standard errors on either side of a mean that make its 95 % interval."""
UNKNOWN = math.nan
MOST_REASONS = 20
SHOWN = 80


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it was read."""

    name: str
    """Without its folder, fit to be printed."""
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def text(self) -> str:
        try:
            return self.data.decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            raise ExchangeError(f"{self.name} is not a table: it is not UTF-8 text") from exc


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user says about a table that the table does not."""

    activations: tuple[str, ...] = ()
    """That its convolutions are to be taken with; empty for what the format's own networks have."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found in the files of one table."""

    rows: Mapping[LayerSpec, Estimate]
    entries: int
    skipped: Mapping[str, int]
    """Entries that became no row, by reason."""
    assumptions: tuple[str, ...]
    """What the format does not tell and was taken for granted."""
    statistic: str
    """What its latencies are: a mean, the best of several."""


@dataclass(slots=True)
class Collected:
    """Rows and reasons, while files are being read."""

    rows: dict[LayerSpec, Estimate] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    entries: int = 0

    def count(self) -> None:
        self.entries += 1
        if self.entries > MOST_ENTRIES:
            raise ExchangeError(f"more than {MOST_ENTRIES} entries; import a part of them")

    def skip(self, reason: str) -> None:
        self.skipped[reason] += 1

    def add(self, layers: Iterable[LayerSpec], estimate: Estimate, same: str = "the same layer again, and no faster") -> None:
        """One entry, which may stand for several layers; of equal layers the faster is kept."""
        known = [layer for layer in layers if layer in self.rows]
        if known:
            self.skip(same)
        for layer in layers:
            if layer not in self.rows or estimate.latency_ms < self.rows[layer].latency_ms:
                self.rows[layer] = estimate

    def reading(self, assumptions: Sequence[str], statistic: str) -> Reading:
        if not self.rows:
            why = "; ".join(f"{count} {reason}" for reason, count in self.skipped.most_common(3)) or "it has no entries"
            raise ExchangeError(f"nothing to import: {why}")
        most = dict(self.skipped.most_common(MOST_REASONS))
        rest = self.skipped.total() - sum(most.values())
        return Reading(self.rows, self.entries, most | ({"others": rest} if rest else {}), tuple(assumptions), statistic)


def read_source(path: Path) -> Source:
    """`ExchangeError` if there is no such file, or more of it than any published table has."""
    name = shown(path.name)
    try:
        if not path.is_file():  # a pipe or a device may never end
            raise ExchangeError(f"there is no file {path}")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as exc:
        raise ExchangeError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    if len(data) > MOST_BYTES:
        raise ExchangeError(f"{name} is larger than {MOST_BYTES / 1e6:g} MB, which no latency table is; import a part of it")
    return Source(name, data)


def shown(text: object) -> str:
    """A piece of a foreign file, fit to be printed, however long or deep it is."""
    return printable(text if isinstance(text, str) else reprlib.repr(text), SHOWN)


def size(value: Any, what: str) -> int:
    """A whole number of at least 1 that a shape, kernel or stride can have."""
    if not is_whole(value, 1, MOST_SIZE):
        raise ExchangeError(f"{what} must be a whole number from 1 to {MOST_SIZE}, not {_quoted(value)}")
    return value


def milliseconds(value: Any, what: str) -> float:
    """A latency that a layer can have."""
    number = number_of(value, what)
    if not 0 < number <= MOST_MS:
        raise ExchangeError(f"{what} must be a latency above 0 and up to {MOST_MS:g} ms, not {number:g}")
    return number


def number_of(value: Any, what: str) -> float:
    """A finite number, also one that is written as text."""
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else UNKNOWN
    except (ValueError, OverflowError):
        number = UNKNOWN
    if not math.isfinite(number):
        raise ExchangeError(f"{what} must be a number, not {_quoted(value)}")
    return number


def _quoted(value: Any) -> str:
    return f"'{shown(value)}'" if isinstance(value, str) else shown(value)


def estimate_of(latency_ms: float, half_ms: float = UNKNOWN, samples: int = 0) -> Estimate:
    """Someone else's figure: no rounds of ours, and where its spread is not told, no interval."""
    low_ms, high_ms = (UNKNOWN, UNKNOWN) if math.isnan(half_ms) else (max(0.0, latency_ms - half_ms), latency_ms + half_ms)
    return Estimate(latency_ms, low_ms, high_ms, rounds=0, samples=samples, quiet_rounds=0)


def checked(what: str, make: Any, *arguments: Any, **options: Any) -> LayerSpec:
    """A layer made of an entry. `ExchangeError` if the entry contradicts itself or is beyond all measure."""
    try:
        layer: LayerSpec = make(*arguments, **options)
    except LayerError as exc:
        raise ExchangeError(f"{what} is no layer: {exc}") from exc
    if (layer.macs or 0) > MOST_MACS or layer.activation_bytes > MOST_MACS or layer.weight_bytes > MOST_MACS:
        raise ExchangeError(f"{what} is larger than any layer can be")
    return layer
