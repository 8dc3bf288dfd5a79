"""Equal latency is latency measured: candidates for a baseline and the step they have to match, all in one interleaved run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from netadapt.errors import RunError
from netadapt.executors import ExecutorOptions
from netadapt.pruning.prune import reshape_like
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

MEASURED = 8
"""How many networks around the predicted latency are measured to find the one that is really as fast."""


@dataclass(frozen=True, slots=True)
class Match:
    """A step of a run, and all it takes to find and train networks that are as fast."""

    models: RunModels
    step: Step
    target: Target
    """Where latencies are measured."""
    table: GrowingTable | None
    """By which networks are shortlisted; None where the run had no latency budget."""
    stages: Stages
    executor: ExecutorOptions
    """Where candidates of another search are fine-tuned."""
    progress: ProgressReporter

    @property
    def step_ms(self) -> float:
        """Predicted."""
        return self.predicted_ms(self.step.widths)

    def predicted_ms(self, widths: Widths) -> float:
        return self.known_table.predict(self.models.graph(widths)).latency_ms.value

    @property
    def known_table(self) -> GrowingTable:
        """`RunError` if the run has none."""
        if self.table is None:
            raise RunError(f"{self.models.run.path} has no latency budget, so no network of equal latency can be looked for")
        return self.table

    def choice(
        self, shape: str, label: str, widths: Widths, measured_ms: Interval | None = None, step_ms: Interval | None = None
    ) -> Choice:
        target = TargetName.of(self.target)
        return Choice(shape, self.step.iteration, dict(self.step.widths), target, label, dict(widths), measured_ms, step_ms)

    def nearest(self, shape: str, networks: Mapping[str, Widths]) -> Choice:
        """The one of these, by their labels, whose latency is measured nearest to the step's; of many those are measured that
        are predicted nearest.

        All are written the same way, with random weights, so that only their shapes differ.
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


def fresh(models: RunModels, widths: Widths, seed: int) -> nn.Module:
    """A network of these widths with random weights of its own for each seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        original = models.options.build()
    return reshape_like(original, models.run.graph, widths)
