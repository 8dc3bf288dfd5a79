"""A table format: a line of JSON for each layer, with its latency in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Sequence

from device_agents.support.strict_json import read_json
from profiler.exchange.reader import ImportedRows, RowCollector, Source, make_layer, milliseconds, published_estimate
from profiler.exchange.writer import ExportedTable
from profiler.layers.layer import LayerSpec
from profiler.tables.table import Table


def read(sources: Sequence[Source], activations: Sequence[str]) -> ImportedRows:
    found = RowCollector()
    for source in sources:
        for line in source.text.splitlines():
            found.count()
            entry = read_json(line.encode())
            layer = make_layer(source.name, LayerSpec.from_dict, entry["layer"])
            found.add([layer], published_estimate(milliseconds(entry["ms"], source.name)))
    return found.finish((), "mean")


def write(table: Table) -> ExportedTable:
    lines = [json.dumps({"layer": layer.to_dict(), "ms": row.latency_ms.value}) for layer, row in table.rows.items()]
    return ExportedTable("".join(f"{line}\n" for line in lines), len(lines))
