"""The foreign formats that can be read or written. A new format is one file and one line in FORMATS."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_agents.support.loading import load
from profiler.errors import ExchangeError
from profiler.exchange.reader import ImportedRows, Source, shown
from profiler.exchange.writer import ExportedTable
from profiler.tables.table import Table

HEAD = 4000
"""The number of characters in which the content of a file is looked for."""
Reader = Callable[[Sequence[Source], Sequence[str]], ImportedRows]
"""A function that reads the files of one table.

Its second argument is the activations of the table's convolutions, if the user named some. It raises `ExchangeError` if a file is
not of this format or contradicts itself.
"""
Writer = Callable[[Table], ExportedTable]


@dataclass(frozen=True, slots=True)
class ForeignFormat:
    """A table format of another tool. A direction that is not supported is None."""

    title: str
    """The name for people."""
    suffixes: tuple[str, ...]
    """The file endings of the format, in lower case; they choose it if the user does not."""
    reader: str | None = None
    """module:function of a `Reader`."""
    writer: str | None = None
    """module:function of a `Writer`."""
    content: str | None = None
    """A regular expression that the beginning of such a file contains; it chooses among formats with the same ending."""


FORMATS: Mapping[str, ForeignFormat] = {
    "csv": ForeignFormat("CSV", (".csv",), "profiler.exchange.csv_form:read", "profiler.exchange.csv_form:write"),
    "nn-meter": ForeignFormat(
        "nn-Meter's kernel data", (".json",), "profiler.exchange.nn_meter:read", "profiler.exchange.nn_meter:write"
    ),
    "ofa": ForeignFormat(
        "once-for-all's and ProxylessNAS' YAML",
        (".yaml", ".yml", ".json"),
        "profiler.exchange.ofa:read",
        "profiler.exchange.ofa:write",
        r"-input:[0-9x]+-output:",
    ),
    "energy-page": ForeignFormat("energyestimation.mit.edu's lines", (".txt",), writer="profiler.exchange.energy_page:write"),
    "tvm": ForeignFormat("TVM's tuning logs", (".log", ".jsonl"), "profiler.exchange.tvm:read"),
}


def readable() -> tuple[str, ...]:
    """The names of the formats that can be read."""
    return tuple(name for name, foreign in FORMATS.items() if foreign.reader is not None)


def writable() -> tuple[str, ...]:
    """The names of the formats that can be written."""
    return tuple(name for name, foreign in FORMATS.items() if foreign.writer is not None)


def reader_of(name: str) -> Reader:
    """The reader of the format. `ExchangeError` if there is no such format or it cannot be read."""
    address = FORMATS[name].reader if name in FORMATS else None
    if address is None:
        raise ExchangeError(f"tables in the form {shown(name)!r} cannot be read; known are {', '.join(readable())}")
    reader: Reader = load(address)
    return reader


def writer_of(name: str) -> Writer:
    """The writer of the format. `ExchangeError` if there is no such format or it cannot be written."""
    address = FORMATS[name].writer if name in FORMATS else None
    if address is None:
        raise ExchangeError(f"a table cannot be written as {name!r}; known are {', '.join(writable())}")
    writer: Writer = load(address)
    return writer


def format_of(paths: Sequence[Path], texts: Sequence[str] = ()) -> str:
    """The name of the readable format of these files, by their endings and, where several have the same, by what the files hold.

    Raises `ExchangeError` unless there is exactly one.
    """
    suffixes = {path.suffix.lower() for path in paths}
    names = [name for name in readable() if suffixes <= set(FORMATS[name].suffixes)]
    if len(names) > 1:
        known = [name for name in names if (sign := FORMATS[name].content) and all(re.search(sign, text[:HEAD]) for text in texts)]
        names = known if known and texts else [name for name in names if FORMATS[name].content is None]
    if len(names) != 1:
        raise ExchangeError(
            f"the endings of {', '.join(path.name for path in paths)} do not show the format; add --format "
            f"{' or '.join(readable())}"
        )
    return names[0]
