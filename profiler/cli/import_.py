"""`profile import`: tables that others have published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profiler.cli.options import RuntimeOfOthers
from profiler.cli.table_summary import print_summary, table_data
from profiler.console import Json, plain_errors, print_json
from profiler.exchange.formats import readable
from profiler.exchange.importing import ImportOptions, import_table, save_imported
from profiler.tables.table import Table


def import_(
    files: Annotated[list[Path], typer.Argument(help="The files of one published table.")],
    device_name: Annotated[str, typer.Option(help="The name of the device that the table was measured on.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The table to write, a .parquet file that does not exist yet.")],
    table_format: Annotated[
        str | None,
        typer.Option("--format", help=f"The form of the files: {', '.join(readable())}. By default their ending tells it."),
    ] = None,
    runtime: RuntimeOfOthers = None,
    threads: Annotated[
        int | None,
        typer.Option(help="The number of threads that the table was measured with. By default it counts as not known."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(help="The URL where the table was published. By default it is filled in for files that this program knows."),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(help="The licence that the table is under. By default it is filled in for files that this program knows."),
    ] = None,
    activation: Annotated[
        list[str] | None,
        typer.Option(
            help="The activation that the convolutions are fused with, where the format does not say. It may be given several "
            "times; each layer is then read once with each. By default it is what the format's own networks have."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert a latency table that others have published into one of ours, which is marked as imported and unverified."""
    with plain_errors():
        options = ImportOptions(device_name, runtime, threads, source, licence, table_format, tuple(activation or ()))
        table = import_table(files, options)
        save_imported(table, out)
        if as_json:
            print_json(table_data(out, table))
        else:
            print_summary(out, table)
            print_entries(table)


def print_entries(table: Table) -> None:
    """What became of the entries that were read."""
    imported = table.info.imported or {}
    for assumption in imported["assumptions"]:
        print(f"  taken for granted: {assumption}")
    print(f"{imported['entries']} entries read, {len(table.rows)} layers made of them")
    for reason, many in imported["skipped"].items():
        print(f"  left out: {many} {reason}")
