"""What the events of a build add up to so far: layers, networks and their measurements. A table is made from this alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, assert_never

from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec
from profiler.measure.disturbance import DisturbanceDetector
from profiler.measure.estimate import Estimate, estimate
from profiler.protocol.events import (
    Conditioning,
    Energy,
    ErrorEstimate,
    Executed,
    Failed,
    Header,
    Hello,
    Idle,
    JournalEvent,
    LayerAdded,
    Measurement,
    NetworkAdded,
    Paused,
    Reference,
    Refresh,
    Round,
    Spent,
    StaircaseRule,
    StaircaseRules,
)


@dataclass(slots=True)
class MeasurementState:
    """Takes up events one by one; the work for each does not grow with the number of those before it."""

    header: Header | None = None
    hello: Hello | None = None
    """The first start of the runner: later ones are the same device (profiler.devices.identity)."""
    conditioning: Mapping[str, Any] = field(default_factory=dict)
    """What the device was last set to for measuring, and how it was found."""
    layers: dict[str, LayerSpec] = field(default_factory=dict)
    networks: dict[str, tuple[str, Graph]] = field(default_factory=dict)
    """Role (fit or check) and graph, by key."""
    files: dict[str, Graph] = field(default_factory=dict)
    """What the runtime executes for users' files, by the SHA-256 of the file."""
    by_rules: set[str] = field(default_factory=set)
    """The networks whose graph follows from our rules."""
    executed: dict[str, list[Executed]] = field(default_factory=dict)
    """What the runtime executes, by key: one answer for each time that it was asked."""
    executed_nodes: dict[str, tuple[Node, ...] | None] = field(default_factory=dict)
    """The node of each operator in these answers, as far as they have been read (profiler.measure.executed): it takes long."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why models could not be measured, by key."""
    rules: list[StaircaseRule] = field(default_factory=list)
    """What sweeps have shown, the latest last."""
    errors: list[ErrorEstimate] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    next_round: int = 0
    idle: list[Idle] = field(default_factory=list)
    energy: dict[str, list[Energy]] = field(default_factory=dict)
    measuring_ns: int = 0
    """Time spent in samples, of ..."""
    wall_s: float = 0.0
    """... the time that the runs of the build took."""
    _detector: DisturbanceDetector = field(default_factory=DisturbanceDetector)
    _tagged: Mapping[str, tuple[Measurement, ...]] | None = None
    """The measurements with what disturbed them, until another event may have changed that."""

    @classmethod
    def of(cls, events: Iterable[JournalEvent]) -> Self:
        state = cls()
        for event in events:
            state.see(event)
        return state

    def see(self, event: JournalEvent) -> None:
        self._detector.see(event)
        self._tagged = None
        match event:
            case Header():
                self.header = event
            case Hello():
                self.hello = self.hello or event
            case Conditioning(found):
                self.conditioning = found
            case LayerAdded(model, layer):
                self.layers[model] = layer
            case NetworkAdded(model, role, graph, file_sha256, by_rules):
                self.networks[model] = (role, graph)
                if file_sha256 is not None:
                    self.files[file_sha256] = graph
                if by_rules:
                    self.by_rules.add(model)
            case Round():
                self.rounds.append(event)
            case Measurement():
                self.measuring_ns += sum(event.samples_ns)
                self.next_round = max(self.next_round, event.round + 1)
            case Reference():
                self.measuring_ns += sum(event.samples_ns)
            case Idle():
                self.idle.append(event)
            case Energy():
                self.energy.setdefault(event.model, []).append(event)
            case Executed():
                self.measuring_ns += 1000 * sum(event.inferences_us)
                self.executed.setdefault(event.model, []).append(event)
            case Failed(model, _, reason):
                self.failed[model] = reason
            case Refresh(models):
                for model in models:
                    self.failed.pop(model, None)
                    self.energy.pop(model, None)
                    self.executed.pop(model, None)
                    self.executed_nodes.pop(model, None)
            case StaircaseRules(rules):
                self.rules += rules
            case ErrorEstimate():
                self.errors.append(event)
            case Spent(wall_s):
                self.wall_s += wall_s
            case Paused():
                pass
            case _:
                assert_never(event)

    @property
    def measurements(self) -> Mapping[str, tuple[Measurement, ...]]:
        """The measurements that count, by model, with what disturbed them."""
        if self._tagged is None:
            self._tagged = self._detector.tagged()
        return self._tagged

    def count(self, model: str) -> int:
        """How many measurements of a model count."""
        return self._detector.count(model)

    @property
    def reference(self) -> str | None:
        """The key of the reference layer, once it has been measured."""
        return self._detector.reference

    @property
    def references_ms(self) -> tuple[float, ...]:
        """The quiet latency of each measurement of the reference layer."""
        return self._detector.references_ms

    @property
    def measured_utc(self) -> Mapping[str, str]:
        """When the oldest measurement of each model that counts was made."""
        return self._detector.measured_utc()

    def estimates(self, models: Iterable[str]) -> dict[str, Estimate]:
        """The latency of each of these models that was measured and has not failed."""
        found = self.measurements
        return {model: estimate(found[model]) for model in models if model in found and model not in self.failed}
