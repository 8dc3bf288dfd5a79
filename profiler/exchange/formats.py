"""The foreign formats that can be read or written, one line each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler.errors import ExchangeError
from profiler.exchange import csv_form, nn_meter, ofa, tvm
from profiler.exchange.reader import ImportedRows, Source
from profiler.exchange.writer import ExportedTable
from profiler.tables.table import Table

Reader = Callable[[Sequence[Source], Sequence[str]], ImportedRows]
"""A function that reads the files of one table.

Its second argument are the activations of the table's convolutions, if the user named some. It raises `ExchangeError` if a file is
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
    read: Reader | None = None
    write: Writer | None = None


FORMATS = {
    "csv": ForeignFormat("CSV", (".csv",), write=csv_form.write),
    "nn-meter": ForeignFormat("nn-Meter's kernel data", (".json",), nn_meter.read, nn_meter.write),
    "ofa": ForeignFormat("once-for-all's and ProxylessNAS' YAML", (".yaml", ".yml"), ofa.read, ofa.write),
    "tvm": ForeignFormat("TVM's tuning logs", (".log", ".jsonl"), tvm.read),
}
READABLE = tuple(name for name, foreign in FORMATS.items() if foreign.read is not None)
WRITABLE = tuple(name for name, foreign in FORMATS.items() if foreign.write is not None)


def format_of(paths: Sequence[Path]) -> str:
    """The name of the readable format with the endings of these files. Raises `ExchangeError` unless there is exactly one."""
    suffixes = {path.suffix.lower() for path in paths}
    names = [name for name in READABLE if suffixes & set(FORMATS[name].suffixes)]
    if len(names) != 1 or not suffixes <= set(FORMATS[names[0]].suffixes):
        raise ExchangeError(
            f"the endings of {', '.join(path.name for path in paths)} do not show the format; add --format {' or '.join(READABLE)}"
        )
    return names[0]
