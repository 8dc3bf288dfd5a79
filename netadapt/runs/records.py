"""What a run folder remembers beside the steps themselves.

Records are frozen dataclasses; their JSON is `dataclasses.asdict`, and `device_agents.support.dataclass_json.read_as` is its
inverse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from netadapt.resources import Budget, parse_budgets
from netadapt.settings import RunSettings
from profiler.tables.table import LatencyTable


@dataclass(frozen=True, slots=True)
class TableFacts:
    """The latency table a run was guided by: where it came from and how far it can be trusted."""

    path: str
    sha256: str
    device: str
    runtime: str
    runtime_version: str
    threads: int
    cpu: str
    created_utc: str
    verified: bool
    held_out: str
    """The table's own sentence about its error on whole networks."""
    mean_error_percent: float | None = None
    worst_error_percent: float | None = None

    @classmethod
    def of(cls, path: Path, table: LatencyTable) -> TableFacts:
        info, facts = table.info, table.info.device.get("device") or {}
        return cls(
            path=str(path),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            device=info.target.device,
            runtime=info.target.runtime,
            runtime_version=str(info.device.get("version", "unknown")),
            threads=info.target.threads,
            cpu=str(facts.get("cpu", "unknown")),
            created_utc=info.created_utc,
            verified=table.verified,
            held_out=table.sentence(),
            mean_error_percent=info.held_out.mean_error_percent,
            worst_error_percent=info.held_out.worst_error_percent,
        )


Place = tuple[str, str]
"""A device and a runtime."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a run was started with."""

    settings: RunSettings
    """A run is only continued under the same settings."""
    budgets: tuple[str, ...]
    """As they were asked for: latency=60%."""
    created_utc: str
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of this project and of what it computes with."""
    tables: Mapping[str, TableFacts] = field(default_factory=dict)
    """By the names that budgets call them; a lone one may have the name ''."""

    @property
    def network(self) -> str:
        return self.settings.network.name

    @property
    def goals(self) -> tuple[Budget, ...]:
        """The budgets, as they are understood. `BudgetError` if the run was begun by another version that knew more."""
        return parse_budgets(self.budgets, self.tables)


@dataclass(frozen=True, slots=True)
class Trained:
    """A network trained to the end with one seed, and what it reaches on the test set."""

    seed: int
    weights: str
    """A file name in the run's folder of weights."""
    test_accuracy: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What else the task tells of it on the test set, by names with units: rmse_m."""


class OverSeeds:
    """What a network that was trained with one seed or several reaches on the test set."""

    __slots__ = ()
    test_accuracy: float
    metrics: Mapping[str, float]
    runs: tuple[Trained, ...]

    @property
    def accuracies(self) -> tuple[float, ...]:
        """On the test set, of every seed."""
        return tuple(run.test_accuracy for run in self.runs) or (self.test_accuracy,)

    @property
    def all_metrics(self) -> tuple[Mapping[str, float], ...]:
        """The same of the task's other figures."""
        return tuple(run.metrics for run in self.runs) or (self.metrics,)


@dataclass(frozen=True, slots=True)
class Finished(OverSeeds):
    """A step after its long-term fine-tune, which the holdout images take part in: only the test set is left to judge it."""

    step: int
    weights: str
    """Of the first seed; these are what is exported."""
    test_accuracy: float
    """Of these weights."""
    epochs: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What else the task tells of it on the test set, by names with units: rmse_m."""
    learning_rate: float | None = None
    batch_size: int | None = None
    augment: bool | None = None
    """These three are None in records from before they were kept."""
    training: tuple[str, ...] = ()
    """From which weights and how it was trained; empty in records that are older than this field."""
    runs: tuple[Trained, ...] = ()
    """The fine-tune with every seed so far, the first seed first; empty in older records."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A step's latency as the table predicts it, if there is a table, and as it was measured whole, with 95 % intervals."""

    step: int
    measured_ms: float
    measured_ms_low: float
    measured_ms_high: float
    runtime: str
    device: str
    predicted_ms: float | None = None
    predicted_ms_low: float | None = None
    predicted_ms_high: float | None = None

    @property
    def place(self) -> Place:
        return self.device, self.runtime

    @property
    def error_percent(self) -> float | None:
        return None if self.predicted_ms is None else (self.predicted_ms / self.measured_ms - 1) * 100


@dataclass(frozen=True, slots=True)
class Baseline(OverSeeds):
    """Another network to compare with, as fast as a step, found or trained in another way, and trained as long."""

    name: str
    """Its file's, without the ending."""
    widths: Mapping[str, int]
    test_accuracy: float
    """Of the first seed, whose weights are what is measured."""
    macs: int
    parameters: int
    measured_ms: float | None = None
    measured_ms_low: float | None = None
    measured_ms_high: float | None = None
    predicted_ms: float | None = None
    predicted_ms_low: float | None = None
    predicted_ms_high: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    kind: str = "multiplier"
    """Of netadapt.baselines.KINDS."""
    step: int | None = None
    """The step it is compared with; unknown in records that are older than this field."""
    training: tuple[str, ...] = ()
    """From which weights and how it was trained."""
    runs: tuple[Trained, ...] = ()
    """The training with every seed so far, the first seed first; empty in older records."""
    device: str = ""
    """Where it is as fast as the step, and is measured; empty in older records."""
    runtime: str = ""

    @property
    def place(self) -> Place | None:
        return (self.device, self.runtime) if self.device else None


@dataclass(frozen=True, slots=True)
class Choice:
    """The network that was measured nearest to a step among those of one shape; it is looked for once."""

    shape: str
    """What was looked through: even, macs or adapted."""
    step: int
    step_widths: Mapping[str, int]
    """Of the step it has to match."""
    device: str
    runtime: str
    label: str
    """What tells it from others of its shape: a multiplier, the number of a step."""
    widths: Mapping[str, int]
    measured_ms: float | None = None
    """In the interleaved run that it was chosen by; None where there was nothing to choose."""
    step_ms: float | None = None
    """Of the step, in the same run."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A step's network as a file to ship: what it computes beside PyTorch, how good and how fast the file itself is."""

    step: int
    path: str
    sha256: str
    format: str
    """onnx or tflite."""
    precision: str
    """float32 or int8."""
    size_bytes: int
    created_utc: str
    images: int
    """Of the test part, on which the file's outputs were compared with PyTorch's."""
    max_abs_difference: float
    cosine_similarity: float
    top1_agreement: float | None = None
    calibration: int | None = None
    """Images of the training part that an int8 file was calibrated on."""
    accuracy: float | None = None
    """Of the file, run by its runtime on this machine, on the whole test part; that of the task's figures which picks."""
    torch_accuracy: float | None = None
    """Of the same network in PyTorch on the same images."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The task's other figures of the file, by names with units: rmse_m."""
    torch_metrics: Mapping[str, float] = field(default_factory=dict)
    device: str | None = None
    runtime: str | None = None
    latency_ms: float | None = None
    latency_ms_low: float | None = None
    latency_ms_high: float | None = None


@dataclass(frozen=True, slots=True)
class LayerLatency:
    """One layer of the original and of the last step's network, by the table."""

    name: str
    ms_before: float
    ms_after: float
