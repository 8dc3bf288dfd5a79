"""The records of a run folder, beside those of the steps.

Records are frozen dataclasses; their JSON is `dataclasses.asdict`, and `device_agents.support.dataclass_json.read_as` is its
inverse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from device_agents.support.reading import read_bytes
from netadapt.resources import Budget, parse_budgets
from netadapt.settings import RunSettings
from netadapt.training.recipe import TrainSettings
from netadapt.training.types import Scores
from profiler.errors import TableError
from profiler.interval import Interval
from profiler.protocol.settings import Target
from profiler.tables.table import Table
from profiler.tables.trust import trust_sentence


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
    def of(cls, path: Path, table: Table) -> TableFacts:
        info, facts = table.info, table.info.device.get("device") or {}
        return cls(
            path=str(path),
            sha256=hashlib.sha256(read_bytes(path, TableError)).hexdigest(),
            device=info.target.device,
            runtime=info.target.runtime,
            runtime_version=str(info.device.get("version", "unknown")),
            threads=info.target.threads,
            cpu=str(facts.get("cpu", "unknown")),
            created_utc=info.created_utc,
            verified=table.verified,
            held_out=trust_sentence(table),
            mean_error_percent=info.held_out.mean_error_percent,
            worst_error_percent=info.held_out.worst_error_percent,
        )


@dataclass(frozen=True, slots=True)
class TargetName:
    """A device and the runtime on it that networks were measured with."""

    device: str
    runtime: str

    @classmethod
    def of(cls, target: Target) -> TargetName:
        return cls(target.device, target.runtime)


@dataclass(frozen=True, slots=True)
class SuperNetworkFacts:
    """The super-network that a run's candidates are judged in; the run's original network is this one at full width."""

    path: str
    sha256: str
    """Of its trained weights."""
    widths: Mapping[str, tuple[int, ...]]
    """The widths that the run may choose of each block that it was trained at, in ascending order."""
    order: Mapping[str, tuple[int, ...]]
    """The positions of blocks, the most important first; a block that is not named has them in their own order."""


@dataclass(frozen=True, slots=True)
class Started:
    """The command that began a run, so that `netadapt resume` can repeat it."""

    arguments: tuple[str, ...]
    """Those of `netadapt run`, as they were typed."""
    folder: str
    """The folder that it was typed in."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The settings, budgets and tables that a run was started with."""

    settings: RunSettings
    """A run is only continued under the same settings."""
    budgets: tuple[str, ...]
    """The budgets as they were typed, such as latency=60%."""
    created_utc: str
    versions: Mapping[str, str] = field(default_factory=dict)
    """The versions of this project and of the packages that it computes with."""
    tables: Mapping[str, TableFacts] = field(default_factory=dict)
    """The facts of each table, by the name that budgets use; a single table may have the name ''."""
    supernet: SuperNetworkFacts | None = None
    started: Started | None = None
    """None for a run that was begun from Python."""

    @property
    def network(self) -> str:
        return self.settings.network.name

    @property
    def goals(self) -> tuple[Budget, ...]:
        """The budgets, as they are understood. `BudgetError` if the run was begun by another version that knew more."""
        return parse_budgets(self.budgets, self.tables)


@dataclass(frozen=True, slots=True)
class Trained:
    """A network trained to the end with one seed, and its scores on the test set."""

    seed: int
    weights: str
    """A file name in the run's folder of weights."""
    test_accuracy: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The task's other figures on the test set, by names with units, such as rmse_m."""


class OverSeeds:
    """A network that was trained with one seed or several, and its scores on the test set."""

    __slots__ = ()
    runs: tuple[Trained, ...]
    """One for each seed, the first seed first."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("a trained network needs at least one seed")

    @property
    def weights(self) -> str:
        """The first seed's, which are exported and measured: a file name in the run's folder of weights."""
        return self.runs[0].weights

    @property
    def test_accuracy(self) -> float:
        """The first seed's accuracy on the test set, from 0 to 1."""
        return self.runs[0].test_accuracy

    @property
    def metrics(self) -> Mapping[str, float]:
        """The first seed's other figures on the test set."""
        return self.runs[0].metrics

    @property
    def accuracies(self) -> tuple[float, ...]:
        """The accuracy of every seed on the test set."""
        return tuple(run.test_accuracy for run in self.runs)

    @property
    def all_metrics(self) -> tuple[Mapping[str, float], ...]:
        """The task's other figures of every seed on the test set."""
        return tuple(run.metrics for run in self.runs)


@dataclass(frozen=True, slots=True)
class Finished(OverSeeds):
    """A step after its long-term fine-tune, which the holdout images take part in: only the test set is left to judge it."""

    step: int
    settings: TrainSettings
    """The settings of the fine-tune."""
    training: tuple[str, ...]
    """The weights it started from and the stage of its training."""
    runs: tuple[Trained, ...]


@dataclass(frozen=True, slots=True)
class Verified:
    """A step's latency as its network was measured whole and, if there is a table, as the table predicts it."""

    step: int
    target: TargetName
    measured_ms: Interval
    predicted_ms: Interval | None = None

    @property
    def error_percent(self) -> float | None:
        """The relative error of the prediction, positive where it is above the measurement; None without a prediction."""
        return None if self.predicted_ms is None else (self.predicted_ms.value / self.measured_ms.value - 1) * 100


@dataclass(frozen=True, slots=True)
class NetworkSize:
    """The widths of a network, and its size, which is the same on every device."""

    widths: Mapping[str, int]
    macs: int
    parameters: int


@dataclass(frozen=True, slots=True)
class Baseline(OverSeeds):
    """Another network to compare with, as fast as a step, found or trained in another way, and trained as long."""

    name: str
    """The name of its files, without the ending."""
    kind: str
    """A name in netadapt.baselines.BASELINES."""
    step: int
    """The step it is compared with."""
    target: TargetName
    """The target on which it is as fast as the step, and is measured."""
    size: NetworkSize
    training: tuple[str, ...]
    """The weights it started from and the stages of its training."""
    runs: tuple[Trained, ...]
    """The training with every seed so far, the first seed first: its weights are the ones that are measured."""
    measured_ms: Interval | None = None
    predicted_ms: Interval | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The network that was measured nearest to a step among those of one shape; it is searched for once."""

    shape: str
    """The networks it was chosen among: even, macs or adapted."""
    step: int
    step_widths: Mapping[str, int]
    """The widths of the step whose latency it has to match."""
    target: TargetName
    label: str
    """Its name among the networks of its shape: a multiplier, or the number of a step."""
    widths: Mapping[str, int]
    measured_ms: Interval | None = None
    """Its latency in the interleaved measurement that it was chosen by; None where there was nothing to choose."""
    step_ms: Interval | None = None
    """The step's latency in the same measurement."""


@dataclass(frozen=True, slots=True)
class FileAgreement:
    """The agreement of an exported file's outputs with PyTorch's."""

    images: int
    """Test images on which the outputs were compared."""
    max_abs_difference: float
    cosine_similarity: float
    top1_agreement: float | None = None
    """The share of images with the same class; None for a network that gives no scores of classes."""


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A step's network as a file to ship: its agreement with PyTorch, its scores and its latency."""

    step: int
    path: str
    sha256: str
    format: str
    """onnx or tflite."""
    precision: str
    """float32 or int8."""
    size_bytes: int
    created_utc: str
    agreement: FileAgreement
    scores: Scores
    """The file's scores on all test images, run by its own runtime on this machine."""
    torch_scores: Scores
    """The scores of the same network in PyTorch, on the same images."""
    calibration: int | None = None
    """Training images that an int8 file was calibrated on."""
    target: TargetName | None = None
    latency_ms: Interval | None = None
    """The latency measured on the target; None where none was asked for."""


@dataclass(frozen=True, slots=True)
class LayerLatency:
    """The latencies of one layer in the original and in the last step's network, as the table predicts them."""

    name: str
    ms_before: float
    ms_after: float
