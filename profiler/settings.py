"""How measurements are taken: every number that shapes one, in one place, stored with each table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from device_agents.errors import ToolError
from profiler.model_file import RUNTIME_FORMATS


@dataclass(frozen=True, slots=True)
class TimingSettings:
    """Defaults for a machine that is not quiet: many short visits, spread over time, rather than one long one."""

    rounds: int = 6
    """Visits to every model before anything is judged."""
    max_rounds: int = 18
    """A model whose interval is still too wide gets more rounds, up to these."""
    settle_percent: float = 2.0
    """A model is settled when its 95 % interval is within this of its latency, ..."""
    settle_ms: float = 0.0005
    """... or within this: half a microsecond matters to no network."""
    visit_ms: float = 30.0
    warmup_ms: float = 5.0
    sample_ms: float = 1.0
    """A sample repeats the inference until it lasts this long, a thousand times the cost of reading the clock."""
    min_samples: int = 5
    min_round_s: float = 1.0
    """A round lasts at least this long, so that the rounds of a few models do not all fall into one spell of noise."""
    silence_s: float = 120.0
    """A runner that says nothing for longer is taken for dead."""
    reference_every: int = 25
    """Visits between two looks at the reference layer."""
    memory_bytes: int = 4 << 30
    seed: int = 1

    def max_open(self, threads: int) -> int:
        """Models open at once. With several threads each session owns a spinning pool, and many of them fight over the cores."""
        return 1000 if threads == 1 else 4

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TimingSettings:
        return cls(**{name: value for name, value in plain.items() if name in cls.__dataclass_fields__})


@dataclass(frozen=True, slots=True)
class Target:
    """Where and with what to measure."""

    device: str = "local"
    runtime: str = "onnxruntime"
    threads: int = 1
    python: str | None = None
    """The interpreter on the device; None for the agent's own choice."""

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIME_FORMATS:
            raise ToolError(f"there is no runtime {self.runtime!r}; known are {', '.join(RUNTIME_FORMATS)}")
        if self.threads < 1:
            raise ToolError(f"--threads must be at least 1, got {self.threads}")

    @property
    def model_format(self) -> str:
        """The format of the files this runtime reads."""
        return RUNTIME_FORMATS[self.runtime]
