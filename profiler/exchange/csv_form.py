"""A table as CSV: a row for each layer, units in the columns' names, and in every row what it was measured with."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from profiler.console import sizes
from profiler.exchange.writer import Writing
from profiler.interval import Interval
from profiler.layers.layer import LayerSpec
from profiler.measure.estimate import Estimate
from profiler.tables.table import LatencyTable


def write(table: LatencyTable) -> Writing:
    """Everything of every layer; what is not known is empty."""
    about = _about(table)
    rows = [_row(layer, estimate) | {"energy_mj": table.energy_mj.get(layer)} | about for layer, estimate in table.rows.items()]
    return Writing(csv_text(rows), len(rows), notes=["sizes are batch first and channels last; what is not known is empty"])


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A header and these rows, whose columns are those of the first; None is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


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
        **Interval(estimate.latency_ms, estimate.latency_ms_low, estimate.latency_ms_high).to_dict("latency_ms"),
        "rounds": estimate.rounds if ours else None,
        "quiet_rounds": estimate.quiet_rounds if ours else None,
        "samples": estimate.samples if ours or estimate.samples else None,
    }
