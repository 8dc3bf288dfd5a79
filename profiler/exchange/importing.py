"""Makes a table of published latencies, with the record of its source and of what is unknown about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from profiler.errors import ExchangeError
from profiler.exchange.formats import format_of, reader_of
from profiler.exchange.reader import read_source, shown
from profiler.layers.layer import ACTIVATIONS
from profiler.protocol.journal import journal_path
from profiler.protocol.settings import Target, TimingSettings
from profiler.runtimes import UNKNOWN_RUNTIME
from profiler.tables.table import Table, TableInfo

KNOWN_FILES = {
    "4f59d150083ed33cce79925a03c7cb14198ff14cb4dd1da2868c973933267035": (
        "https://github.com/itouchz/Neural-Predictor-Tensorflow/blob/a660b8a35082a9defef764e591d6901160c367ae/proxylessnas/pixel_trim.yaml",
        "MIT",
    ),
}
"""The source and the licence of published files, by their SHA-256."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The user's statements about a published table. None is unknown. Raises `ExchangeError` if a text or activation is invalid."""

    device: str
    """The name of the device on which it was measured."""
    runtime: str | None = None
    threads: int | None = None
    source: str | None = None
    """The place of publication, such as a URL."""
    licence: str | None = None
    format: str | None = None
    """A name in profiler.exchange.formats.FORMATS; None to choose by the files' endings."""
    activations: tuple[str, ...] = ()
    """The activations that the convolutions are imported with; empty for those of the format's own networks."""

    def __post_init__(self) -> None:
        for name, text in (("--device-name", self.device), ("--source", self.source or "-"), ("--licence", self.licence or "-")):
            if not text.strip() or not text.isprintable() or len(text) > 500:
                raise ExchangeError(f"{name} takes a line of up to 500 characters, not {shown(text)!r}")
        unknown = [activation for activation in self.activations if activation not in ACTIVATIONS]
        if unknown:
            raise ExchangeError(f"there is no activation {shown(unknown[0])!r}; known are {', '.join(ACTIVATIONS)}")


def import_table(paths: Sequence[Path], options: ImportOptions) -> Table:
    """All files together as one table. Raises `ExchangeError` if a file cannot be read or is not of the format."""
    if options.format:
        reader_of(options.format)  # an unknown one is told before the files are read
    sources = [read_source(path) for path in paths]
    name = options.format or format_of(paths, [source.text for source in sources])
    reader = reader_of(name)
    # an activation that is given twice must not give its layers twice
    imported = reader(sources, tuple(dict.fromkeys(options.activations)))
    # what the user says counts before what is known about a published file
    known_source, known_licence = KNOWN_FILES.get(sources[0].sha256, (None, None)) if len(sources) == 1 else (None, None)
    provenance = {
        "from": ", ".join(source.name for source in sources),
        "format": name,
        "source": options.source or known_source,
        "licence": options.licence or known_licence,
        "files": [{"name": source.name, "sha256": source.sha256, "size_bytes": len(source.data)} for source in sources],
        "runtime": options.runtime,
        "threads": options.threads,
        "statistic": imported.statistic,
        "assumptions": list(imported.assumptions),
        "entries": imported.entries,
        "skipped": dict(imported.skipped),
    }
    target = Target(options.device, options.runtime or UNKNOWN_RUNTIME, 1 if options.threads is None else options.threads)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    device = {"device": {}, "version": "version not told", "flags": {}, "imported": provenance}
    return Table(imported.rows, TableInfo(target, device, TimingSettings(), now))


def save_imported(table: Table, out: Path) -> None:
    """Save the table to a new file. Raises `ExchangeError` if the file exists, because it may be a measured table."""
    if out.suffix != ".parquet" or not out.parent.is_dir():
        raise ExchangeError(f"{out} cannot become a table: give a name ending in .parquet in a folder that exists")
    if out.exists() or journal_path(out).exists():
        raise ExchangeError(f"{out} or its journal exists already; choose another --out or remove it")
    table.save(out)
