"""Writes a table as CSV: a row for each layer, with units in the column names, and with the conditions of the measurement."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from profiler.console import sizes
from profiler.exchange.writer import ExportedTable
from profiler.layers.layer import LayerSpec
from profiler.measure.estimate import Estimate
from profiler.tables.table import Table


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
        "cut_out_sha256": layer.opaque.digest if layer.opaque else None,
        "macs": layer.macs,
        "weight_bytes": layer.weight_bytes,
        "activation_bytes": layer.activation_bytes,
        **estimate.latency_ms.to_dict("latency_ms"),
        "rounds": estimate.rounds if measured_by_us else None,
        "quiet_rounds": estimate.quiet_rounds if measured_by_us else None,
        "samples": estimate.samples if measured_by_us or estimate.samples else None,
    }
