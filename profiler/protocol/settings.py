"""What to measure with, and how: every number that shapes a measurement, in one place, stored with each table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from device_agents.support.dataclass_json import read_as
from device_agents.support.errors import ToolError
from device_agents.support.text import did_you_mean
from profiler.runtimes import MEANT, MODELLED_RUNTIME, RUNTIMES, UNKNOWN_RUNTIME


@dataclass(frozen=True, slots=True)
class TimingSettings:
    """Defaults for a machine that is not quiet: many short measurements, spread over time, rather than one long one."""

    rounds: int = 6
    """Measurements of every model before its interval is judged."""
    max_rounds: int = 18
    """A model whose interval is still too wide gets more rounds, up to this number in all."""
    settle_percent: float = 2.0
    """A model is settled when its 95 % interval is within this of its latency, ..."""
    settle_ms: float = 0.001
    """... or within this: a microsecond matters to no network."""
    measurement_ms: float = 30.0
    warmup_ms: float = 2.0
    sample_ms: float = 1.0
    """A sample repeats the inference until it lasts this long, a thousand times the cost of reading the clock."""
    min_samples: int = 5
    min_round_s: float = 0.4
    """A round lasts at least this long, so that the rounds of a few models do not all fall into one spell of noise."""
    silence_s: float = 120.0
    """A runner that sends no event for longer is taken for dead."""
    reference_every: int = 12
    """The reference layer is measured before every so many measurements, ..."""
    reference_ms: float = 8.0
    """... and only for so long."""
    quiet_rounds: int = 3
    """A model is only settled after so many undisturbed rounds; it gets more rounds, up to `max_rounds`, until it has them."""
    network_rounds: int = 18
    """Measurements of each whole network: the calibration is fitted to them and the held-out error stated with
    them, so they must be more certain than those of layers."""
    memory_bytes: int = 4 << 30
    max_open: int = 1000
    """The most models that a runner keeps open at once, ..."""
    max_open_pools: int = 4
    """... and the most where each model owns a pool of spinning threads, for many pools would fight over the cores."""
    seed: int = 1

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TimingSettings:
        return read_as(cls, plain)


@dataclass(frozen=True, slots=True)
class Target:
    """The device, the runtime and the runner to measure with."""

    device: str = "local"
    runtime: str = "onnxruntime"
    threads: int = 1
    python: str | None = None
    """The Python interpreter on the device; None for the agent's own choice."""
    runner: str | None = None
    """The name of the runner; None for the one in profile.toml or, without one there, for ours."""
    oversubscribe: bool = False
    """True if more threads than the device has cores are meant."""

    def __post_init__(self) -> None:
        if self.runtime not in (*RUNTIMES, UNKNOWN_RUNTIME, MODELLED_RUNTIME):
            raise ToolError(f"there is no runtime {self.runtime!r}; {did_you_mean(self.runtime, RUNTIMES, MEANT)}")
        if self.threads < 1:
            raise ToolError(f"--threads must be at least 1, got {self.threads}")

    @property
    def model_format(self) -> str:
        """The format of the model files that the runtime reads. `ToolError` if the runtime of an imported table is not known, or if
        there is none because the table is modelled."""
        if self.runtime == MODELLED_RUNTIME:
            raise ToolError(f"{self.device} is modelled, so that nothing can be measured on it; name a device with --device")
        if self.runtime == UNKNOWN_RUNTIME:
            raise ToolError("the table was imported and does not say with which runtime; import it again with --runtime")
        return RUNTIMES[self.runtime].model_format

    def reads(self, model_format: str) -> bool:
        """True if the runtime reads model files of this format. An unknown runtime may read any, and a model reads all."""
        return self.runtime in (UNKNOWN_RUNTIME, MODELLED_RUNTIME) or self.model_format == model_format
