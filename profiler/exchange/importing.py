"""A table made of what others have published: its rows, where they come from, and what nobody knows about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from profiler.errors import ExchangeError
from profiler.exchange.formats import FORMATS, READABLE, format_of
from profiler.exchange.reader import Asked, Reading, Source, read_source, shown
from profiler.layers.layer import ACTIVATIONS
from profiler.protocol.journal import journal_path
from profiler.protocol.settings import Target, TimingSettings
from profiler.runtimes import UNKNOWN_RUNTIME
from profiler.tables.table import LatencyTable, TableInfo

KNOWN_FILES = {
    "4f59d150083ed33cce79925a03c7cb14198ff14cb4dd1da2868c973933267035": (
        "https://github.com/itouchz/Neural-Predictor-Tensorflow/blob/a660b8a35082a9defef764e591d6901160c367ae/proxylessnas/pixel_trim.yaml",
        "MIT",
    ),
}
"""By sha256: where published files come from, and the licence they are under there."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the user says of the table."""

    device: str
    """What it was measured on."""
    runtime: str | None = None
    threads: int | None = None
    source: str | None = None
    licence: str | None = None
    format: str | None = None
    activations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, text in (("--device-name", self.device), ("--source", self.source or "-"), ("--licence", self.licence or "-")):
            if not text.strip() or not text.isprintable() or len(text) > 500:
                raise ExchangeError(f"{name} takes a line of up to 500 characters, not {shown(text)!r}")
        unknown = [activation for activation in self.activations if activation not in ACTIVATIONS]
        if unknown:
            raise ExchangeError(f"there is no activation {shown(unknown[0])!r}; known are {', '.join(ACTIVATIONS)}")


def import_table(paths: Sequence[Path], told: Told) -> LatencyTable:
    """All files as one table. `ExchangeError` for anything that is not what it should be."""
    name = told.format or format_of(paths)
    reader = FORMATS[name].read if name in FORMATS else None
    if reader is None:
        raise ExchangeError(f"tables in the form {shown(name)!r} cannot be read; known are {', '.join(READABLE)}")
    sources = [read_source(path) for path in paths]
    reading = reader(sources, Asked(tuple(dict.fromkeys(told.activations))))
    target = Target(told.device, told.runtime or UNKNOWN_RUNTIME, 1 if told.threads is None else told.threads)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    device = {"device": {}, "version": "version not told", "flags": {}, "imported": _imported(name, sources, told, reading)}
    return LatencyTable(reading.rows, TableInfo(target, device, TimingSettings(), now))


def _imported(name: str, sources: Sequence[Source], told: Told, reading: Reading) -> dict[str, Any]:
    known_source, known_licence = KNOWN_FILES.get(sources[0].sha256, (None, None)) if len(sources) == 1 else (None, None)
    source, licence = told.source or known_source, told.licence or known_licence
    return {
        "from": ", ".join(source.name for source in sources),
        "format": name,
        "source": source,
        "licence": licence,
        "files": [{"name": item.name, "sha256": item.sha256, "size_bytes": len(item.data)} for item in sources],
        "runtime": told.runtime,
        "threads": told.threads,
        "statistic": reading.statistic,
        "assumptions": list(reading.assumptions),
        "entries": reading.entries,
        "skipped": dict(reading.skipped),
    }


def save_imported(table: LatencyTable, out: Path) -> None:
    """Where nothing is yet: a measured table is not to be replaced by somebody else's."""
    if out.suffix != ".parquet" or not out.parent.is_dir():
        raise ExchangeError(f"{out} cannot become a table: give a name ending in .parquet in a folder that exists")
    if out.exists() or journal_path(out).exists():
        raise ExchangeError(f"{out} or its journal exists already; choose another --out or remove it")
    table.save(out)
