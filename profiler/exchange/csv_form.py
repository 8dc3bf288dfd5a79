"""Writes a table as CSV, and reads it again: a row for each layer, with units in the column names, and with the conditions of the
measurement.

The file may have been saved again by a spreadsheet or by pandas: with semicolons or tabs, decimal commas, or more columns.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from profiler.console import sizes
from profiler.errors import ExchangeError
from profiler.exchange.reader import (
    MOST_SAMPLES,
    ImportedRows,
    RowCollector,
    Source,
    make_layer,
    milliseconds,
    number_of,
    shown,
    size,
)
from profiler.exchange.writer import ExportedTable
from profiler.interval import Interval
from profiler.layers.layer import LayerSpec
from profiler.measure.estimate import Estimate
from profiler.tables.table import Table

NEEDED = (
    "op", "inputs", "output", "kernel_px", "stride_px", "dilation_px", "padding_top_left_bottom_right_px", "groups", "activation",
    "bias", "precision", "latency_ms",
)  # fmt: skip
"""The columns without which a row is no layer."""
TABLE_ROWS = "table_rows"
"""The column that has the number of all rows in each, by which a file that was cut short between two rows is noticed."""
CUT_OUT = "operators that were cut out of a model file, which the rows do not hold"


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A header and these rows, whose columns are those of the first; None is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write(table: Table) -> ExportedTable:
    """All layers with all their fields; unknown values are empty."""
    target = table.info.target
    imported = table.info.imported or {}
    conditions = {
        "device": target.device,
        "runtime": target.runtime,
        "runtime_version": table.info.device.get("version"),
        "threads": imported.get("threads") if imported else target.threads,
        "imported_from": imported.get("from"),
        "licence": imported.get("licence"),
        "verified": table.verified,
        TABLE_ROWS: len(table.rows),
    }
    rows = [
        _row(layer, estimate) | {"energy_mj": table.energy_mj.get(layer)} | conditions for layer, estimate in table.rows.items()
    ]
    return ExportedTable(csv_text(rows), len(rows), notes=["sizes are batch first and channels last; what is not known is empty"])


def _row(layer: LayerSpec, estimate: Estimate) -> dict[str, Any]:
    measured_by_us = estimate.rounds > 0
    return {
        "key": layer.key,
        "op": layer.op,
        "inputs": " + ".join(map(sizes, layer.inputs)),
        "output": sizes(layer.output),
        "kernel_px": sizes(layer.kernel),
        "stride_px": sizes(layer.stride),
        "dilation_px": sizes(layer.dilation),
        "padding_top_left_bottom_right_px": " ".join(map(str, layer.padding)),
        "groups": layer.groups,
        "hidden_channels": layer.hidden or None,
        "activation": layer.activation,
        "bias": layer.bias,
        "precision": layer.dtype,
        "layout": layer.layout or None,
        "cut_out_sha256": layer.opaque.digest if layer.opaque else None,
        "macs": layer.macs,
        "weight_bytes": layer.weight_bytes,
        "activation_bytes": layer.activation_bytes,
        **estimate.latency_ms.to_dict("latency_ms"),
        "rounds": estimate.rounds if measured_by_us else None,
        "quiet_rounds": estimate.quiet_rounds if measured_by_us else None,
        "samples": estimate.samples if measured_by_us or estimate.samples else None,
    }


_SEPARATOR = re.compile(r"\Asep=.[\r\n]+", re.IGNORECASE)
"""A line that tells spreadsheets what separates columns."""


def read(sources: Sequence[Source], activations: Sequence[str]) -> ImportedRows:
    """The layers in files that `write` has made. Raises `ExchangeError`, with the line, for any other file."""
    if activations:
        raise ExchangeError("each row of a CSV table has its activation; leave --activation out")
    found = RowCollector()
    for source in sources:
        text = _SEPARATOR.sub("", source.text)
        header, _, _ = text.partition("\n")
        delimiter = max(",;\t", key=header.count)
        reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)
        try:
            missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
            if missing:
                raise ExchangeError(
                    f"{source.name} has no column {missing[0]}; such a table is written by `profile export --format csv`, and not "
                    "by `profile show`"
                )
            stated: set[str] = set()
            before = found.entries
            for row in reader:
                found.count()
                if None in row.values() or row.get(TABLE_ROWS) == "":
                    raise ExchangeError(
                        f"{source.name}, line {reader.line_num} ends in the middle; the file was cut short, import the whole one"
                    )
                _add_row(found, f"{source.name}, line {reader.line_num}", row, delimiter)
                if TABLE_ROWS in row:
                    stated.add(row[TABLE_ROWS])
            _check_whole(source.name, found.entries - before, stated)
        except csv.Error as exc:
            raise ExchangeError(f"{source.name}, line {reader.line_num} is not CSV: {exc}") from exc
    return found.finish(("energies and the conditions of the measurement are not read",), "as the file's own table was measured")


def _check_whole(name: str, rows: int, stated: Iterable[str]) -> None:
    """`ExchangeError` if the file has another number of rows than one of its rows says."""
    for text in sorted(stated):
        if number_of(text, f"{name}: {TABLE_ROWS}") != rows:
            raise ExchangeError(
                f"{name} has {rows} of {shown(text)} rows; if it was cut short, import the whole one, and if rows were left out on "
                f"purpose, leave its column {TABLE_ROWS} out too"
            )


def _add_row(found: RowCollector, label: str, row: Mapping[str, str | None], delimiter: str) -> None:
    """Add the row. Numbers of a file with semicolons may have decimal commas."""
    cells = {name: (row.get(name) or "").strip() for name in (*NEEDED, "hidden_channels", "layout", "cut_out_sha256", "samples")}
    for name in ("latency_ms", "latency_ms_low", "latency_ms_high"):
        text = (row.get(name) or "").strip()
        cells[name] = text.replace(",", ".") if delimiter == ";" else text
    if cells["cut_out_sha256"]:
        found.skip(CUT_OUT)
        return

    def numbers(name: str, text: str, separator: str = "x", count: int | None = None, least: int = 1) -> tuple[int, ...]:
        values = tuple(int(part) if part.isascii() and part.isdigit() else -1 for part in text.strip().split(separator))
        if (count and len(values) != count) or min(values) < least:
            raise ExchangeError(f"{label}: {name} cannot be {shown(text)!r}")
        return tuple(size(value, f"{label}: {name}") if value else 0 for value in values)

    kernel, stride, dilation = (numbers(name, cells[f"{name}_px"], count=2) for name in ("kernel", "stride", "dilation"))
    padding = numbers("padding", cells["padding_top_left_bottom_right_px"], " ", 4, 0)
    groups, hidden = numbers("groups", cells["groups"], count=1)[0], numbers("hidden", cells["hidden_channels"] or "0", least=0)[0]
    inputs = tuple(numbers("an input", part) for part in cells["inputs"].split("+"))
    layer = make_layer(
        label, LayerSpec, cells["op"], inputs, numbers("output", cells["output"]), kernel, stride, dilation, padding, groups,
        activation=cells["activation"], bias=cells["bias"].lower() in ("true", "1"), dtype=cells["precision"],
        layout=cells["layout"], hidden=hidden,
    )  # fmt: skip
    latency_ms = milliseconds(cells["latency_ms"], f"{label}: latency_ms")
    samples = number_of(cells["samples"] or 0, f"{label}: samples")
    if not 0 <= samples <= MOST_SAMPLES:
        raise ExchangeError(f"{label}: there cannot be {samples:g} samples")
    interval_ms = Interval.unknown(latency_ms)
    if cells["latency_ms_low"] and cells["latency_ms_high"]:
        low_ms, high_ms = (number_of(cells[f"latency_ms_{end}"], f"{label}: latency_ms_{end}") for end in ("low", "high"))
        if not 0 <= low_ms <= latency_ms <= high_ms:
            raise ExchangeError(f"{label}: {low_ms:g} to {high_ms:g} ms is no interval around {latency_ms:g} ms")
        interval_ms = Interval(latency_ms, low_ms, high_ms)
    found.add([layer], Estimate(interval_ms, rounds=0, samples=int(samples), quiet_rounds=0))
