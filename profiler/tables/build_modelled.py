"""Tables of accelerators whose inside is known: the rows are computed, for the layers of plans and model files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean

from profiler.errors import HardwareError, TableError
from profiler.layers.layer import LayerSpec
from profiler.modelled.model import LayerCost, open_model
from profiler.progress import ProgressReporter, Silent
from profiler.protocol.journal import journal_path
from profiler.protocol.settings import Target, TimingSettings
from profiler.runtimes import MODELLED_RUNTIME
from profiler.tables.plan import Plan
from profiler.tables.predictor import modelled
from profiler.tables.table import Table, TableInfo, load_table


def build_modelled(
    plans: Sequence[Plan],
    address: str,
    path: Path,
    densities: Path | None = None,
    progress: ProgressReporter = Silent(),  # noqa: B008
) -> Table:
    """Compute the layers of the plans' networks, at full widths and at those for fit and check, and save them as a table.

    The rows are for people and for export: predictions compute the layers of any width. With a file of densities, a layer that is
    at several places of a network with other zeros at each has their mean as its row. A table that is there already and was made
    for the same hardware and densities gets the rows in addition. `TableError` for another one, `HardwareError` for an unknown
    address or for densities of another network.
    """
    began, model = time.monotonic(), open_model(address, densities)
    if model.densities is not None:
        for plan in plans:
            model.densities.check(plan.graph.nodes, plan.graph.name)
    if path.suffix != ".parquet" or not path.parent.is_dir():
        raise TableError(f"{path} cannot become a table: give a name ending in .parquet in a folder that exists")
    if journal_path(path).exists():
        raise TableError(f"{path} belongs to a measured table, whose journal is beside it; choose another --out")
    device = {"device": {}, "version": "", "flags": {}, "modelled": model.to_dict()}
    target = Target(address, MODELLED_RUNTIME)
    before = load_table(path) if path.exists() else None
    if before is not None and before.info.modelled != device["modelled"]:
        raise TableError(f"{path} is another table; choose another --out or remove it")
    rows, energy_mj = (dict(before.rows), dict(before.energy_mj)) if before is not None else ({}, {})
    failed = dict(before.info.failed) if before is not None else {}
    graphs = [graph for plan in plans for graph in (plan.graph, *map(plan.graph.at_widths, (*plan.fit, *plan.check)))]
    named = model.densities.layers if model.densities is not None else {}
    places = dict.fromkeys((node.layer, node.name if node.name in named else "") for graph in graphs for node in graph.nodes)
    found: dict[LayerSpec, list[LayerCost]] = {}
    progress.begin(f"computing layers for {path.name}", len(places))
    for layer, node in places:
        try:
            found.setdefault(layer, []).append(model.cost(layer, node))
        except HardwareError as exc:
            failed[layer.key] = str(exc)
        progress.advance(layer.key)
    for layer, costs in found.items():
        energy = mean(cost.energy_mj for cost in costs) if costs else 0.0
        if energy > 0:  # flattening costs nothing
            rows[layer], energy_mj[layer] = modelled(mean(cost.latency_ms for cost in costs)), energy
    if not rows:
        why = next(iter(failed.values()), "figures of its description, or densities, are 0 and must be more")
        raise TableError(f"no layer costs anything on {model.hardware.name}: {why}")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    info = TableInfo(target, device, TimingSettings(), now, failed=failed)
    table = Table(rows, replace(info, wall_s=time.monotonic() - began), energy_mj)
    table.save(path)
    return table
