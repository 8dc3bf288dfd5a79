"""The measuring half of a build: the models that are wanted, the journal, and rounds of measurements."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from profiler.errors import JournalError
from profiler.formats.model_file import FORMATS
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec
from profiler.measure.energy import MEASUREMENT_MS as ENERGY_MEASUREMENT_MS
from profiler.measure.energy import ROUNDS as ENERGY_ROUNDS
from profiler.measure.energy import measurements_in_force
from profiler.measure.estimate import estimate
from profiler.measure.journal import Journal
from profiler.measure.session import Session
from profiler.measure.state import Results
from profiler.progress import ProgressReporter


@dataclass(frozen=True, slots=True)
class Job:
    """A model to measure and the journal line that says what it is."""

    line: Mapping[str, Any]
    model: bytes

    @property
    def key(self) -> str:
        return str(self.line["key"])


def layer_job(layer: LayerSpec, model_format: str, opaques: Mapping[str, bytes] | None = None) -> Job:
    model = FORMATS[model_format].write(Graph.of_layer(layer, opaques))
    return Job({"event": "layer", "key": layer.key, "layer": layer.to_dict()}, model)


@dataclass(slots=True)
class Bench:
    """One device, one journal."""

    session: Session
    journal: Journal
    progress: ProgressReporter
    jobs: dict[str, Job] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    _seen: tuple[int, Results] | None = None
    """What so many lines of the journal add up to."""

    @property
    def results(self) -> Results:
        count = len(self.journal.lines)
        if self._seen is None or self._seen[0] != count:
            self._seen = (count, Results.of(self.journal.lines))
        return self._seen[1]

    @property
    def wall_s(self) -> float:
        return time.monotonic() - self.started

    def want(self, jobs: Iterable[Job]) -> list[str]:
        """Take up these jobs, once each, in the journal too; their keys."""
        known = {line["key"] for line in self.journal.lines if line["event"] in ("layer", "network")}
        wanted = {job.key: job for job in jobs}
        for key, job in wanted.items():
            self.jobs.setdefault(key, job)
            if key not in known:
                self.journal.append(job.line)
        return list(wanted)

    def want_layers(self, layers: Iterable[LayerSpec], opaques: Mapping[str, bytes] | None = None) -> list[str]:
        """The same for layers, whose files are only written if they are not wanted yet."""
        wanted = {layer.key: layer for layer in layers}
        model_format = self.session.target.model_format
        self.want(layer_job(layer, model_format, opaques) for key, layer in wanted.items() if key not in self.jobs)
        return list(wanted)

    def measurement(self, rounds: Mapping[str, int], what: str) -> None:
        """Bring each model to so many measurements, those of earlier runs counted, each in a round of its own."""
        results = self.results
        needs = {
            key: count - len(results.measurements.get(key, ()))
            for key, count in rounds.items()
            if key not in results.failed and count > len(results.measurements.get(key, ()))
        }
        if not needs:
            return
        first = max((line["round"] for line in self.journal.lines if line["event"] == "measurement"), default=-1) + 1
        schedule = [(first + number, [key for key in needs if needs[key] > number]) for number in range(max(needs.values()))]
        self.progress.begin(f"{what} {len(needs)} models", sum(needs.values()))
        models = {key: self.jobs[key].model for key in needs}
        reference = self._reference(results)
        if reference is not None:
            models[reference.key] = reference.model
        for message in self.session.measure(models, schedule, reference=reference.key if reference else None):
            self._note(message)

    def energy(self, keys: Iterable[str]) -> None:
        """Measurement these models for their energy; nothing is measured again that has been."""
        hello: Mapping[str, Any] = next((line for line in self.journal.lines if line["event"] == "hello"), {})
        if not hello.get("energy_source"):
            self.progress.say("no energy: the device has no counter for it, or does not let us read it")
            return
        seen = {line["key"] for line in measurements_in_force(self.journal.lines)} | self.results.failed.keys()
        wanted = [key for key in dict.fromkeys(keys) if key not in seen]
        if wanted:
            self.progress.begin(f"energy of {len(wanted)} models", ENERGY_ROUNDS * len(wanted))
            models = {key: self.jobs[key].model for key in wanted}
            schedule = [(number, wanted) for number in range(ENERGY_ROUNDS)]
            for message in self.session.energy(models, schedule, ENERGY_MEASUREMENT_MS):
                self._note(message)

    def settle(self, most: Mapping[str, int]) -> None:
        """More rounds for those whose interval is still wide or whose rounds were disturbed, each up to its own number."""
        settings = self.session.settings
        step = settings.rounds // 2 or 1
        while True:
            results = self.results
            counts = {
                key: len(results.measurements[key]) for key in most if key in results.measurements and key not in results.failed
            }
            wide = {
                key: min(count + step, most[key])
                for key, count in counts.items()
                if count < most[key] and not estimate(results.measurements[key]).settled(settings)
            }
            if not wide:
                return
            self.measurement(wide, "settling")

    def _note(self, message: Mapping[str, Any]) -> None:
        match message["event"]:
            case "hello":
                _check_same_device(self.journal, message)
                self.journal.append({**message, "utc": datetime.now(UTC).isoformat(timespec="seconds")})
                if self.session.conditioning is not None:
                    self.journal.append({"event": "conditioning", "state": dict(self.session.conditioning.state)})
            case "paused":
                self.journal.append(message)
                self.progress.say(f"{message['reason']}; going on as soon as it is possible")
            case "measurement" | "reference" | "failed" | "energy":
                line = {name: value for name, value in message.items() if name != "model"}
                self.journal.append(line | {"key": message["model"]})
                if message["event"] != "reference":
                    self.progress.advance(message["model"][:60])
            case "round" | "idle":
                self.journal.append(message)
                self.journal.sync()

    def _reference(self, results: Results) -> Job | None:
        """The layer looked at again and again to notice drift: the one of middling work, and the same one throughout."""
        looked_at: str | None = next((line["key"] for line in self.journal.lines if line["event"] == "reference"), None)
        if looked_at is not None and looked_at in results.failed:
            return None
        if looked_at is not None and looked_at in results.layers:
            return self.jobs.get(looked_at) or layer_job(results.layers[looked_at], self.session.target.model_format)
        ranked = sorted((key for key, layer in results.layers.items() if layer.macs), key=lambda key: _work(results.layers[key]))
        return self.jobs.get(ranked[len(ranked) // 2]) if len(ranked) >= 10 else None


def _work(layer: LayerSpec) -> tuple[int, str]:
    return layer.macs or 0, layer.key


def _check_same_device(journal: Journal, hello: Mapping[str, Any]) -> None:
    """Samples of two devices, or of one before and after an update, must not end up in one table."""
    before = next((line for line in journal.lines if line["event"] == "hello"), None)
    for name in ("device", "version", "library_sha256", "flags", "runner", "affinity"):
        if before is not None and before.get(name, hello.get(name)) != hello.get(name):
            raise JournalError(
                f"the device or its runtime has changed since {journal.path} was begun ({name}: {before.get(name)!r}, "
                f"now {hello.get(name)!r}); build a new table"
            )
