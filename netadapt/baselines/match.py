"""The match in measured latency: networks for a baseline and the step that they have to match, measured in one interleaved run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from netadapt.errors import RunError
from netadapt.executors import ExecutorOptions
from netadapt.runs.models import RunModels
from netadapt.runs.records import Choice, TargetName
from netadapt.runs.training_schedule import Stages
from netadapt.search.types import Step
from profiler.formats.model_file import FORMATS
from profiler.interval import Interval
from profiler.measure.benchmark import measure_files
from profiler.measure.opening import PATIENCE_S
from profiler.progress import ProgressReporter
from profiler.protocol.settings import Target
from profiler.tables.growing import GrowingTable

Widths = Mapping[str, int]
"""The width of every block, in channels."""

MEASURED = 8
"""The number of networks, those predicted nearest to the step's latency, that are measured to find the nearest."""


@dataclass(frozen=True, slots=True)
class Match:
    """A step of a run, and everything that is needed to find and train networks that are as fast."""

    models: RunModels
    step: Step
    target: Target
    """The device and runtime that latencies are measured with."""
    table: GrowingTable | None
    """The table whose predictions select the networks to measure; None where the run had no latency budget."""
    stages: Stages
    """The stages of training of the run's networks."""
    executor: ExecutorOptions
    """The executor that fine-tunes the candidates of another search."""
    progress: ProgressReporter

    @property
    def step_ms(self) -> float:
        """The predicted latency of the step in ms."""
        return self.predicted_ms(self.step.widths)

    def predicted_ms(self, widths: Widths) -> float:
        """The predicted latency in ms of the network with these widths."""
        return self.known_table.predict(self.models.graph(widths)).latency_ms.value

    @property
    def known_table(self) -> GrowingTable:
        """The table. `RunError` if the run has none."""
        if self.table is None:
            raise RunError(
                f"{self.models.run.path} has no latency budget, so no network of equal latency can be found; use --kind scratch"
            )
        return self.table

    def choice(
        self, shape: str, label: str, widths: Widths, measured_ms: Interval | None = None, step_ms: Interval | None = None
    ) -> Choice:
        """The record of a chosen network for this step and target; `label` is its name among the networks of its shape."""
        target = TargetName.of(self.target)
        return Choice(shape, self.step.iteration, dict(self.step.widths), target, label, dict(widths), measured_ms, step_ms)

    def nearest(self, shape: str, networks: Mapping[str, Widths]) -> Choice:
        """The network whose measured latency is nearest to the step's; `networks` has the widths of each by its label.

        If there are many, only those with the nearest predictions are measured. All files, the step's among them, are written from
        graphs with random weights, so that only shapes differ. `DeviceError` or `RunnerError` if the device cannot be reached.
        """
        goal_ms = self.step_ms
        around = sorted(networks, key=lambda label: abs(self.predicted_ms(networks[label]) - goal_ms))[:MEASURED]
        writer = FORMATS[self.target.model_format]
        with tempfile.TemporaryDirectory(prefix="baselines_") as folder:
            files = {label: Path(folder, f"{number}.{writer.name}") for number, label in enumerate(around)}
            step_file = Path(folder, f"step.{writer.name}")
            for path, widths in ((step_file, self.step.widths), *((files[label], networks[label]) for label in around)):
                path.write_bytes(writer.write(self.models.graph(widths)))
            measured = measure_files(
                [step_file, *files.values()],
                self.target,
                settings=self.known_table.table.info.settings,
                progress=self.progress,
                wait_s=PATIENCE_S,
            )
        found = {path: item.estimate.latency_ms for path, item in measured.items()}
        best = min(around, key=lambda label: abs(found[files[label]].value - found[step_file].value))
        return self.choice(shape, best, networks[best], found[files[best]], found[step_file])
