"""What a journal's lines add up to: measurements by model, and the table made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from device_agents.support.dataclass_json import read_as
from profiler.errors import JournalError
from profiler.latency.calibration import fit
from profiler.latency.staircase import Staircases, read_staircases
from profiler.latency.validation import Checked, close
from profiler.layers.graph import Graph
from profiler.measure.disturbance import tag_counts
from profiler.measure.energy import energies_mj
from profiler.measure.estimate import Estimate
from profiler.measure.state import Results
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.table import LatencyTable, TableInfo


def table_from_journal(lines: Sequence[Mapping[str, Any]]) -> LatencyTable:
    """Estimate every layer, fit the calibration on one part of the networks and state the held_out on the other."""
    results = Results.of(lines)
    hello = next((line for line in lines if line["event"] == "hello"), None)
    if hello is None:
        raise JournalError("the journal holds no measurement yet")
    rows = {results.layers[key]: value for key, value in results.estimates(results.layers).items()}
    energy_mj = {results.layers[key]: value for key, value in energies_mj(lines).items() if key in results.layers}
    naive = LatencyTable(rows, _info(lines, hello, results), energy_mj)
    measured = results.estimates(results.networks)
    networks = [(*results.networks[key], value) for key, value in measured.items()]
    usable = [(role, graph, value) for role, graph, value in networks if not naive.explain(graph).missing]
    calibrated = naive.with_calibration(
        fit([(naive.sums(graph), value.latency_ms) for role, graph, value in usable if role == "fit"], naive.tile)
    )
    checked = [_checked(calibrated, graph, value) for role, graph, value in usable if role == "check"]
    return calibrated.with_held_out(close(checked))


def _checked(table: LatencyTable, graph: Graph, measured: Estimate) -> Checked:
    said = table.predict(graph)
    return Checked(graph.name, said.latency_ms, said.latency_ms_low, said.latency_ms_high, measured.latency_ms, said.naive_ms)


def _info(lines: Sequence[Mapping[str, Any]], hello: Mapping[str, Any], results: Results) -> TableInfo:
    try:
        target, settings = read_as(Target, lines[0]["target"]), TimingSettings.from_dict(lines[0]["settings"])
    except ValueError as exc:
        raise JournalError(f"the journal's first line makes no sense: {exc}") from exc
    told = ("device", "version", "library_sha256", "flags", "runner", "build", "runner_sha256", "affinity", "energy_source")
    device = {name: hello.get(name) for name in told}
    device["conditioning"] = next((line["state"] for line in reversed(lines) if line["event"] == "conditioning"), {})
    return TableInfo(
        target=target,
        device=device,
        settings=settings,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        measured_utc={key: utc for key, utc in results.measured_utc.items() if key in results.layers},
        validated_utc=min((utc for key, utc in results.measured_utc.items() if key in results.networks), default=None),
        staircases=staircases_of(results),
        failed=dict(results.failed),
        networks=tuple(graph.name for role, graph in results.networks.values() if role == "check"),
        disturbances=tag_counts(measurement for measurements in results.measurements.values() for measurement in measurements),
        progress=tuple(
            {name: value for name, value in line.items() if name != "event"} for line in lines if line["event"] == "error"
        ),
        reference_drift_percent=_drift_percent(results.looks_ms),
        measuring_s=sum(sum(line["samples_ns"]) for line in lines if line["event"] in ("measurement", "reference")) / 1e9,
        wall_s=sum(line["wall_s"] for line in lines if line["event"] == "spent"),
    )


def _drift_percent(looks_ms: Sequence[float]) -> float | None:
    """How far the reference layer's latency wandered: the 95th percentile of the looks at it over their 5th."""
    if len(looks_ms) < 10:
        return None
    low, high = np.percentile(looks_ms, [5, 95])
    return float(high / low - 1) * 100


def staircases_of(results: Results) -> Staircases:
    """`JournalError` for rules that make no sense."""
    try:
        return read_staircases(results.staircases)
    except (KeyError, TypeError, ValueError) as exc:
        raise JournalError(f"the journal has a line that makes no sense: {exc!r}") from exc
