"""The one measuring loop: of builds, `profile benchmark`, `netadapt measure`, checks of winners and spot checks.

Models are measured in rounds that lie apart in time, each in an order of its own, with looks at a reference layer in between; what
disturbed a measurement is known in the same way for all of them. So a table and what it is held against are measured alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol, assert_never

from profiler.devices.identity import Identity
from profiler.errors import DeviceChanged
from profiler.formats.model_file import FORMATS
from profiler.layers.graph import Graph
from profiler.layers.integers import is_one_operator
from profiler.layers.layer import LayerSpec
from profiler.measure.energy import MEASUREMENT_MS as ENERGY_MEASUREMENT_MS
from profiler.measure.energy import ROUNDS as ENERGY_ROUNDS
from profiler.measure.session import Session
from profiler.measure.state import MeasurementState
from profiler.progress import ProgressReporter
from profiler.protocol.events import (
    Begin,
    Conditioning,
    Done,
    Energy,
    Executed,
    Failed,
    Hello,
    Idle,
    JournalEvent,
    LayerAdded,
    Measurement,
    NetworkAdded,
    NotFinite,
    Outputs,
    Paused,
    Reference,
    Round,
    SessionEvent,
)
from profiler.protocol.job import USUAL, Loading
from profiler.protocol.settings import TimingSettings

FEW_MODELS_LONGER = 2.5
"""Rounds of a few models are so much longer than a build's, for they are to lie as far apart in time."""
REFERENCE_AMONG = 10
"""With fewer layers than these none is sure to be of middling work."""


class Recorder(Protocol):
    """Where events go before anything else is done with them: a journal, or nowhere."""

    def append(self, event: JournalEvent) -> None: ...

    def sync(self) -> None: ...


class Unrecorded:
    """The recorder of measurements that nobody goes on with after this process."""

    def append(self, event: JournalEvent) -> None:
        pass

    def sync(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Model:
    """A model file to measure, and what it is: a layer or network of a table, or None for a file that stands for itself."""

    key: str
    file: bytes
    added: LayerAdded | NetworkAdded | None = None
    loading: Loading = USUAL


def layer_model(session: Session, layer: LayerSpec, opaques: Mapping[str, bytes] | None = None) -> Model:
    """The file that measures a layer alone. `opaques` are the files of opaque layers, by digest.

    Where the runtime tells which operators it executes, the layer is one of these and must be left as it is.
    """
    as_it_is = session.leaves_as_it_is and (layer.opaque is not None or layer.dtype == "float32" or is_one_operator(layer))
    graph = Graph.of_layer(layer, opaques, executed=as_it_is)
    file = FORMATS[session.target.model_format].write(graph)
    return Model(layer.key, file, LayerAdded(layer.key, layer), Loading(as_it_is, finite=layer.opaque is None))


@dataclass(slots=True)
class MeasurementRun:
    """The models that are wanted on one device, and all that has been measured of them so far."""

    session: Session
    progress: ProgressReporter
    recorder: Recorder = field(default_factory=Unrecorded)
    state: MeasurementState = field(default_factory=MeasurementState)
    models: dict[str, Model] = field(default_factory=dict)
    reference: LayerSpec | None = None
    """The reference layer; None for one of those that are measured."""
    made_on: Identity | None = None
    """The device that it has to be; None for the one that the first measurement was made on."""
    not_finite: set[str] = field(default_factory=set)
    """The keys of models that were measured although their outputs are not finite, because they need not be."""
    started_s: float = field(default_factory=time.monotonic)

    @property
    def settings(self) -> TimingSettings:
        return self.session.settings

    @property
    def wall_s(self) -> float:
        return time.monotonic() - self.started_s

    def record(self, event: JournalEvent) -> None:
        """Write the event to the journal, then take it up."""
        self.recorder.append(event)
        self.state.see(event)

    def add(self, models: Iterable[Model]) -> list[str]:
        """Take up these models, once each, in the journal too; their keys."""
        wanted = {model.key: model for model in models}
        for key, model in wanted.items():
            self.models.setdefault(key, model)
            if model.added is not None and key not in self.state.layers and key not in self.state.networks:
                self.record(model.added)
        return list(wanted)

    def add_layers(self, layers: Iterable[LayerSpec], opaques: Mapping[str, bytes] | None = None) -> list[str]:
        """The same for layers, whose files are only written if they are not wanted yet."""
        wanted = {layer.key: layer for layer in layers}
        self.add(layer_model(self.session, layer, opaques) for key, layer in wanted.items() if key not in self.models)
        return list(wanted)

    def measure(self, rounds: Mapping[str, int], what: str) -> None:
        """Bring each model to so many measurements, those of earlier runs counted, each in a round of its own."""
        state = self.state
        needs = {key: count - state.count(key) for key, count in rounds.items() if key not in state.failed}
        needs = {key: count for key, count in needs.items() if count > 0}
        if not needs:
            return
        schedule = [
            (state.next_round + number, [key for key in needs if needs[key] > number]) for number in range(max(needs.values()))
        ]
        self.progress.begin(f"{what} {len(needs)} model{'s' if len(needs) > 1 else ''}", sum(needs.values()))
        models = {key: self.models[key] for key in needs}
        reference = self._reference()
        if reference is not None:
            models[reference.key] = reference
        files = {key: model.file for key, model in models.items()}
        loading = {key: model.loading for key, model in models.items()}
        for event in self.session.measure(files, schedule, reference=reference.key if reference else None, loading=loading):
            self._take_up(event)

    def settle(self, most: Mapping[str, int]) -> None:
        """More rounds for those whose interval is still wide or whose rounds were disturbed, each up to its own number.

        All that a model is likely to need are asked for at once, because starting a runner and opening models takes time too.
        """
        step = self.settings.rounds // 2 or 1
        while True:
            wide = {}
            for key, found in self.state.estimates(most).items():
                if found.rounds < most[key] and not found.settled(self.settings):
                    wide[key] = min(max(found.rounds + step, found.rounds_to_settle(self.settings)), most[key])
            if not wide:
                return
            self.measure(wide, "settling")

    def ask_executed(self, models: Sequence[Model], inferences: int) -> None:
        """Ask the runtime what it executes for these models, and how long each operator takes in so many inferences."""
        self.progress.begin(f"asking what {self.session.target.runtime} executes for {len(models)} models", len(models))
        files = {model.key: model.file for model in models}
        for event in self.session.executed(files, inferences, {model.key: model.loading for model in models}):
            self._take_up(event)

    def measure_energy(self, keys: Iterable[str]) -> None:
        """Measure these models for their energy; nothing is measured again that has been."""
        if self.state.hello is None or not self.state.hello.energy_source:
            self.progress.say("no energy: the device has no counter for it, or does not let us read it")
            return
        wanted = [key for key in dict.fromkeys(keys) if key not in self.state.energy and key not in self.state.failed]
        if wanted:
            self.progress.begin(f"energy of {len(wanted)} models", ENERGY_ROUNDS * len(wanted))
            files = {key: self.models[key].file for key in wanted}
            schedule = [(number, wanted) for number in range(ENERGY_ROUNDS)]
            for event in self.session.energy(files, schedule, ENERGY_MEASUREMENT_MS):
                self._take_up(event)

    def _take_up(self, event: SessionEvent) -> None:
        match event:
            case Hello():
                self._check_same_device(event)
                self.record(replace(event, utc=datetime.now(UTC).isoformat(timespec="seconds")))
                if self.session.conditioning is not None:
                    self.record(Conditioning(dict(self.session.conditioning.state)))
            case Paused(reason):
                self.record(event)
                self.progress.say(f"{reason}; going on as soon as it is possible")
            case Executed():
                before = self.state.executed.get(event.model)
                self.record(event.since(before[0]) if before else event)
                self.progress.advance(event.model[:60])
            case Measurement() | Energy() | Failed():
                self.record(event)
                self.progress.advance(event.model[:60])
            case Reference():
                self.record(event)
            case Round() | Idle():
                self.record(event)
                self.recorder.sync()
            case NotFinite(model, _):
                self.not_finite.add(model)
            case Begin() | Outputs() | Done():
                pass
            case _:
                assert_never(event)

    def _check_same_device(self, hello: Hello) -> None:
        """`DeviceChanged` if the samples would be of two devices, or of one before and after an update."""
        before = self.made_on
        if before is None and self.state.hello is not None:
            before = Identity.of_hello(self.state.hello, self.state.conditioning)
        state = self.session.conditioning.state if self.session.conditioning is not None else {}
        if before is not None and (changed := before.differences(Identity.of_hello(hello, state))):
            raise DeviceChanged(changed)

    def _reference(self) -> Model | None:
        """The layer that is measured again and again to notice drift, the same one throughout.

        None as long as there are too few layers to choose one, and where it cannot be measured.
        """
        state, layer = self.state, self.reference
        if state.reference is not None:  # chosen by an earlier run of the build
            layer = state.layers.get(state.reference, layer)
        elif layer is None:
            layer = middling_layer(state.layers.values())
        if layer is None or layer.key in state.failed:
            return None
        return self.models.get(layer.key) or layer_model(self.session, layer)


def middling_layer(layers: Iterable[LayerSpec]) -> LayerSpec | None:
    """The layer of middling work among these; None if they are too few to have one."""
    ranked = sorted((layer for layer in layers if layer.macs and layer.opaque is None), key=lambda layer: (layer.macs, layer.key))
    return ranked[len(ranked) // 2] if len(ranked) >= REFERENCE_AMONG else None


def few_models(settings: TimingSettings) -> TimingSettings:
    """The settings for a few models: their rounds are as long as those of a build's many."""
    return replace(settings, min_round_s=FEW_MODELS_LONGER * settings.min_round_s)
