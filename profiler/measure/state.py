"""What a journal's lines add up to so far: layers, networks and their measurements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from profiler.errors import JournalError
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec
from profiler.measure.disturbance import Watch
from profiler.measure.estimate import Estimate, Measurement, estimate


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
    staircases: Sequence[Mapping[str, Any]]
    """Rules as sweeps have shown them, the latest last (profiler.latency.staircase.read_staircases)."""
    measured_utc: Mapping[str, str]
    """When the oldest measurement that counts was made, by key; journals of earlier versions do not tell."""

    @classmethod
    def of(cls, lines: Iterable[Mapping[str, Any]]) -> Results:
        """`JournalError` for a line that makes no sense."""
        layers: dict[str, LayerSpec] = {}
        networks: dict[str, tuple[str, Graph]] = {}
        measurements: dict[str, list[Measurement]] = {}
        failed: dict[str, str] = {}
        staircases: list[Mapping[str, Any]] = []
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
                        staircases += line["rules"]
            for key, measurement in watch.measurements():
                measurements.setdefault(key, []).append(measurement)
        except (KeyError, TypeError, ValueError) as exc:
            raise JournalError(f"the journal has a line that makes no sense: {exc!r}") from exc
        tagged = {key: tuple(items) for key, items in measurements.items()}
        return cls(layers, networks, tagged, watch.looks_ms, failed, staircases, watch.measured_utc())

    def estimates(self, keys: Iterable[str]) -> dict[str, Estimate]:
        return {key: estimate(self.measurements[key]) for key in keys if key in self.measurements and key not in self.failed}
