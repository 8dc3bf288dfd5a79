"""Writes a table in a foreign format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from device_agents.support.atomic import write_whole
from profiler.errors import ExchangeError
from profiler.exchange.formats import FORMATS, writer_of
from profiler.exchange.writer import ExportedTable
from profiler.tables.table import Table, load_table


@dataclass(frozen=True, slots=True)
class Exported:
    """A table file that was written in a foreign form."""

    path: Path
    """Of our table."""
    table: Table
    form: str
    out: Path
    writing: ExportedTable


def export_file(path: Path, form: str, out: Path) -> Exported:
    """`TableError` if there is no such table, `ExchangeError` if there is no such form or it can hold nothing of the table."""
    table = load_table(path)
    return Exported(path, table, form, out, export_table(table, form, out))


def export_table(table: Table, name: str, out: Path) -> ExportedTable:
    """Write the table to `out` in the format called `name`, completely or not at all.

    Raises `ExchangeError` if there is no such format, if it can represent no layer of the table, or if the file cannot be written.
    """
    writer = writer_of(name)
    if out.suffix == ".parquet":
        raise ExchangeError(
            f"{out} would be taken for a table of ours; give it another ending, such as {FORMATS[name].suffixes[0]}"
        )
    exported = writer(table)
    if not exported.written:
        reasons = "; ".join(f"{count} {reason}" for reason, count in exported.left_out.most_common(3)) or "it has none"
        raise ExchangeError(f"{FORMATS[name].title} can hold no layer of this table: {reasons}; choose another format")
    if table.info.block > 1 and name != "csv":
        exported.notes.append(
            f"convolutions run in blocks of {table.info.block} channels there: their latencies are without the copies into that "
            "layout and out of it, and hold for channels rounded up to whole blocks"
        )
    write_whole(out, exported.text, ExchangeError)
    return exported
