"""What a runner is told to do (device_agents/on_device/PROTOCOL.md, "The job")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from profiler.protocol.events import PROTOCOL
from profiler.protocol.settings import TimingSettings

Schedule = Sequence[tuple[int, Sequence[str]]]
"""Rounds in order: the number of each and the models that are measured in it."""


@dataclass(frozen=True, slots=True)
class Loading:
    """How a runner opens a model."""

    as_it_is: bool = False
    """True if the runtime must not optimise it, because it is a part of a graph that was optimised before."""
    copies: int = 1
    """How many times it is opened. Inferences run on the copies in turn: the weights of many lie beyond the caches."""
    finite: bool = True
    """True if outputs that are not finite are a failure. They are none of a user's file, nor of a part of it."""


USUAL = Loading()


@dataclass(frozen=True, slots=True)
class Job:
    """Models, rounds and how each measurement is taken."""

    runtime: str
    threads: int
    settings: TimingSettings
    models: Mapping[str, str]
    """The name of each model's file in the device's store, by the model's key."""
    schedule: Schedule
    loading: Mapping[str, Loading] = field(default_factory=dict)
    """How models are opened, by the model's key; `USUAL` for those that are not in it."""
    reference: str | None = None
    """The model that is measured shortly between the others, or None."""
    cpus: tuple[int, ...] | None = None
    """The cores to stay on; None for any."""
    outputs: int = 0
    """How many values of each output to return instead of measuring; 0 to measure."""
    energy_ms: float = 0.0
    """The length of an energy measurement, instead of a latency; 0 to measure latency."""
    profiled: int = 0
    """How many inferences to run under the runtime's profiler, to learn what it executes; 0 to measure latency."""
    lease: str | None = None
    """The file that a runner locks as long as it lives; None for none."""
    libraries: tuple[str, ...] = ()
    """Shared libraries that the native runner opens, in this order."""

    @property
    def measures_latency(self) -> bool:
        """False for a job that asks for outputs, energy or executed graphs instead."""
        return not (self.outputs or self.energy_ms or self.profiled)

    def placed(self, lease: str, libraries: Sequence[str]) -> Job:
        """The same job with the paths of the lease file and of the libraries on the device."""
        return replace(self, lease=lease, libraries=tuple(libraries))

    def to_dict(self) -> dict[str, Any]:
        """The job as its file has it."""
        settings = self.settings
        return {
            "format": PROTOCOL,
            "runtime": self.runtime,
            "threads": self.threads,
            "cpus": list(self.cpus) if self.cpus else None,
            "root": "/",
            "seed": settings.seed,
            "measurement_ms": settings.measurement_ms,
            "warmup_ms": settings.warmup_ms,
            "sample_ms": settings.sample_ms,
            "min_samples": settings.min_samples,
            "min_round_s": settings.min_round_s,
            "silence_s": settings.silence_s,
            "memory_bytes": settings.memory_bytes,
            "max_open": settings.max_open,
            "max_open_pools": settings.max_open_pools,
            "reference_ms": settings.reference_ms,
            "reference": self.reference,
            "reference_every": settings.reference_every,
            "acknowledged": True,
            "outputs": self.outputs,
            "energy_ms": self.energy_ms,
            "profiled": self.profiled,
            "lease": self.lease,
            "libraries": list(self.libraries),
            "models": [{"id": name, "file": file, **asdict(self.loading.get(name, USUAL))} for name, file in self.models.items()],
            "schedule": [{"round": number, "models": list(names)} for number, names in self.schedule if names],
        }
