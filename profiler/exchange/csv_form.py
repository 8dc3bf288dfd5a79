"""Writes a table as CSV: a row for each layer, with units in the column names, and with the conditions of the measurement."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from profiler.exchange.writer import ExportedTable
from profiler.layers.layer import LayerSpec, Shape
from profiler.measure.estimate import Estimate
from profiler.tables.table import LatencyTable


def write(table: LatencyTable) -> ExportedTable:
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
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return ExportedTable(text.getvalue(), len(rows), notes=["sizes are batch first and channels last; what is not known is empty"])


def _row(layer: LayerSpec, estimate: Estimate) -> dict[str, Any]:
    measured_by_us = estimate.rounds > 0
    return {
        "key": layer.key,
        "op": layer.op,
        "inputs": " + ".join(map(_sizes, layer.inputs)),
        "output": _sizes(layer.output),
        "kernel_px": _sizes(layer.kernel),
        "stride_px": _sizes(layer.stride),
        "dilation_px": _sizes(layer.dilation),
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
        "latency_ms": estimate.latency_ms,
        "latency_ms_low": _known(estimate.latency_ms_low),
        "latency_ms_high": _known(estimate.latency_ms_high),
        "rounds": estimate.rounds if measured_by_us else None,
        "quiet_rounds": estimate.quiet_rounds if measured_by_us else None,
        "samples": estimate.samples if measured_by_us or estimate.samples else None,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _sizes(shape: Shape) -> str:
    return "x".join(map(str, shape))
