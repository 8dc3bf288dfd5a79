"""`profile show`: a table and its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from profiler.cli.options import TableFile, one_of
from profiler.cli.table_summary import print_summary, table_data
from profiler.console import Json, count, plain_errors, print_json, print_table, sizes
from profiler.exchange.csv_form import csv_text
from profiler.layers.layer import LayerSpec
from profiler.measure.estimate import Estimate
from profiler.tables.table import Table, load_table


def print_text(path: Path, table: Table) -> None:
    """What it is, and a row for each layer; with energy, where the device could tell any."""
    energy = ("mJ",) if table.energy_mj else ()
    cells = []
    for layer, estimate in table.rows.items():
        latency_ms = estimate.latency_ms
        ends = (f"{latency_ms.low:.4f}", f"{latency_ms.high:.4f}") if latency_ms.known else (None, None)
        mj = table.energy_mj.get(layer)
        shapes = "+".join(map(sizes, layer.inputs)), sizes(layer.output)
        cells.append(
            (layer.op, *shapes, count(layer.macs), f"{latency_ms.value:.4f}", *ends, estimate.rounds or None)
            + ((None if mj is None else f"{mj:.3g}",) if energy else ())
        )
    print_summary(path, table)
    columns = ("layer", "input", "output", "MACs", "ms", "low", "high", "rounds", *energy)
    print_table(columns, cells, right=("MACs", "ms", "low", "high", "rounds", *energy))


def print_csv(path: Path, table: Table) -> None:
    print(csv_text(rows_data(table)), end="")


def print_markdown(path: Path, table: Table) -> None:
    rows = rows_data(table)
    columns = list(rows[0]) if rows else []
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join('' if value is None else str(value) for value in row.values())} |")


def print_as_json(path: Path, table: Table) -> None:
    print_json(table_data(path, table) | {"layers": rows_data(table)})


FORMS: Mapping[str, Callable[[Path, Table], None]] = {
    "text": print_text, "csv": print_csv, "markdown": print_markdown, "json": print_as_json,
}  # fmt: skip


def show(
    table: TableFile,
    table_format: Annotated[
        str, typer.Option("--format", **one_of(lambda: FORMS), help="The form to print the table in.")
    ] = "text",
    as_json: Json = False,
) -> None:
    """Print a table: what it was measured on, how far it can be trusted, and a row for each layer."""
    with plain_errors():
        FORMS["json" if as_json else table_format](table, load_table(table))


def rows_data(table: Table) -> list[dict[str, Any]]:
    """A row for each layer, flat, for CSV and Markdown too; with energy, where the device could tell any."""
    return [
        row_data(layer, estimate) | ({"energy_mj": table.energy_mj.get(layer)} if table.energy_mj else {})
        for layer, estimate in table.rows.items()
    ]


def row_data(layer: LayerSpec, estimate: Estimate) -> dict[str, Any]:
    return {
        "op": layer.op,
        "inputs": "+".join(map(sizes, layer.inputs)),
        "output": sizes(layer.output),
        "precision": layer.dtype,
        "macs": layer.macs,
        "weight_bytes": layer.weight_bytes,
        "activation_bytes": layer.activation_bytes,
        **estimate.latency_ms.to_dict("latency_ms"),
        "rounds": estimate.rounds,
        "samples": estimate.samples,
        "quiet_rounds": estimate.quiet_rounds,
        "key": layer.key,
    }
