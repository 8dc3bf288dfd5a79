"""The foreign formats we read and write: one line each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler.errors import ExchangeError
from profiler.exchange import csv_form, nn_meter, ofa, tvm
from profiler.exchange.reader import Asked, Reading, Source
from profiler.exchange.writer import Writing
from profiler.tables.table import LatencyTable


@dataclass(frozen=True, slots=True)
class Foreign:
    """A format; what it cannot do is None."""

    title: str
    suffixes: tuple[str, ...]
    """Of files that are taken for it when nothing else is said."""
    read: Callable[[Sequence[Source], Asked], Reading] | None = None
    write: Callable[[LatencyTable], Writing] | None = None


FORMATS = {
    "csv": Foreign("CSV", (".csv",), write=csv_form.write),
    "nn-meter": Foreign("nn-Meter's kernel data", (".json",), nn_meter.read, nn_meter.write),
    "ofa": Foreign("once-for-all's and ProxylessNAS' YAML", (".yaml", ".yml"), ofa.read, ofa.write),
    "tvm": Foreign("TVM's tuning logs", (".log", ".jsonl"), tvm.read),
}
READABLE = tuple(name for name, foreign in FORMATS.items() if foreign.read is not None)
WRITABLE = tuple(name for name, foreign in FORMATS.items() if foreign.write is not None)


def format_of(paths: Sequence[Path]) -> str:
    """By the files' endings. `ExchangeError` if they say nothing or different things."""
    suffixes = {path.suffix.lower() for path in paths}
    names = [name for name in READABLE if suffixes & set(FORMATS[name].suffixes)]
    if len(names) != 1 or not suffixes <= set(FORMATS[names[0]].suffixes):
        raise ExchangeError(
            f"what is in {', '.join(path.name for path in paths)} cannot be told; add --format {' or '.join(READABLE)}"
        )
    return names[0]
