"""A table as CSV: a row for each layer, units in the columns' names, and in every row what it was measured with."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from profiler.exchange.writer import Writing
from profiler.layers.layer import LayerSpec, Shape
from profiler.measure.estimate import Estimate
from profiler.tables.table import LatencyTable


def write(table: LatencyTable) -> Writing:
    """Everything of every layer; what is not known is empty."""
    about = _about(table)
    rows = [_row(layer, estimate) | {"energy_mj": table.energy_mj.get(layer)} | about for layer, estimate in table.rows.items()]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return Writing(text.getvalue(), len(rows), notes=["sizes are batch first and channels last; what is not known is empty"])


def _about(table: LatencyTable) -> dict[str, Any]:
    target, imported = table.info.target, table.info.imported or {}
    threads = imported.get("threads") if imported else target.threads
    return {
        "device": target.device,
        "runtime": target.runtime,
        "runtime_version": table.info.device.get("version"),
        "threads": threads,
        "imported_from": imported.get("from"),
        "licence": imported.get("licence"),
        "verified": table.verified,
    }


def _row(layer: LayerSpec, estimate: Estimate) -> dict[str, Any]:
    ours = estimate.rounds > 0
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
        "rounds": estimate.rounds if ours else None,
        "quiet_rounds": estimate.quiet_rounds if ours else None,
        "samples": estimate.samples if ours or estimate.samples else None,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _sizes(shape: Shape) -> str:
    return "x".join(map(str, shape))
