"""What a journal's lines add up to: measurements by model, and the table made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from device_agents.support.dataclass_json import read_as
from profiler.errors import JournalError
from profiler.latency.calibration import fit
from profiler.latency.staircase import Staircases, read_staircases
from profiler.latency.validation import Checked, close
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec
from profiler.measure.disturbance import Watch, tag_counts
from profiler.measure.energy import energies_mj
from profiler.measure.estimate import Estimate, Measurement, estimate
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.table import LatencyTable, TableInfo


@dataclass(frozen=True, slots=True)
class Results:
    """Everything measured so far."""

    layers: Mapping[str, LayerSpec]
    networks: Mapping[str, tuple[str, Graph]]
    """Role (fit or check) and graph, by key."""
    measurements: Mapping[str, tuple[Measurement, ...]]
    """With what disturbed them."""
    looks_ms: tuple[float, ...]
    """Latency at each look at the reference layer."""
    failed: Mapping[str, str]
    staircases: Staircases
    measured_utc: Mapping[str, str]
    """When the oldest measurement that counts was made, by key; journals of earlier versions do not tell."""

    @classmethod
    def of(cls, lines: Iterable[Mapping[str, Any]]) -> Results:
        """`JournalError` for a line that makes no sense."""
        layers: dict[str, LayerSpec] = {}
        networks: dict[str, tuple[str, Graph]] = {}
        measurements: dict[str, list[Measurement]] = {}
        failed: dict[str, str] = {}
        staircases: Staircases = {}
        watch = Watch()
        try:
            for line in lines:
                watch.see(line)
                match line["event"]:
                    case "layer":
                        layers[line["key"]] = LayerSpec.from_dict(line["layer"])
                    case "network":
                        networks[line["key"]] = (line["role"], Graph.from_dict(line["graph"]))
                    case "failed":
                        failed[line["key"]] = line["reason"]
                    case "refresh":
                        failed = {key: reason for key, reason in failed.items() if key not in line["keys"]}
                    case "staircases":
                        staircases = {**staircases, **read_staircases(line["rules"])}
            for key, measurement in watch.measurements():
                measurements.setdefault(key, []).append(measurement)
        except (KeyError, TypeError, ValueError) as exc:
            raise JournalError(f"the journal has a line that makes no sense: {exc!r}") from exc
        tagged = {key: tuple(items) for key, items in measurements.items()}
        return cls(layers, networks, tagged, watch.looks_ms, failed, staircases, watch.measured_utc())

    def estimates(self, keys: Iterable[str]) -> dict[str, Estimate]:
        return {key: estimate(self.measurements[key]) for key in keys if key in self.measurements and key not in self.failed}


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
        staircases=results.staircases,
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
