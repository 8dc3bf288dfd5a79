"""Winners measured on the devices that their latencies are predicted for, as far as these can be reached.

A step is exported as it would be shipped and measured whole, as `netadapt measure` does, so that a run learns while it lasts what
its tables are off by. A device that cannot be reached, or is another than the table's, costs a run nothing but this knowledge.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agents.errors import DeviceError
from netadapt.errors import RunError
from netadapt.resources import Goal
from netadapt.runs.intervals import latency_of
from netadapt.runs.measure import exported
from netadapt.runs.models import RunModels
from netadapt.search.bias import Checked
from netadapt.search.types import Step
from profiler.errors import RunnerError
from profiler.formats.model_file import FORMATS
from profiler.layers.graph import Graph
from profiler.layers.layer import conv2d
from profiler.measure.benchmark import Measured, measure_files
from profiler.measure.opening import PATIENCE_S
from profiler.progress import ProgressReporter
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.growing import OnDemand
from profiler.tables.table import LatencyTable

SPOT_CHECK = TimingSettings(rounds=1, max_rounds=1, measurement_ms=1.0, min_round_s=0.0, quiet_rounds=0, silence_s=60.0)
"""Enough to hear what the device is."""
UNREACHABLE = (DeviceError, RunnerError)


@dataclass(frozen=True, slots=True)
class DeviceCheck:
    """The loop's `check`, for the budgets whose devices can be reached."""

    models: RunModels
    tables: Mapping[str, OnDemand]
    """By the budgets' names."""
    progress: ProgressReporter

    def __call__(self, step: Step) -> dict[str, Checked]:
        """A device that has gone away by now is told and left out."""
        found: dict[str, Checked] = {}
        for name, table in self.tables.items():
            target = table.table.info.target
            path = exported(self.models, step, target.model_format)
            try:
                estimate = measure_files([path], target, progress=self.progress, wait_s=PATIENCE_S)[path].estimate
            except UNREACHABLE as exc:
                self.progress.say(f"warning: step {step.iteration} was not measured for {name}: {exc}")
                continue
            predicted = table.table.predict(self.models.graph(step.widths))
            found[name] = Checked(latency_of(estimate), latency_of(predicted))
        return found


def within_reach(
    goals: Iterable[Goal], tables: Mapping[str, LatencyTable], measure: bool | None, progress: ProgressReporter
) -> tuple[str, ...]:
    """Names of the latency budgets that winners can be measured for; none where `measure` is false.

    `RunError` where `measure` is true and a device is out of reach or not the one its table was made on; where it is None such a
    device is told and left out.
    """
    names = []
    for goal in goals:
        if not goal.budget.measurable or measure is False:
            continue
        reason = out_of_reach(tables[goal.budget.table], progress)
        if reason is None:
            names.append(goal.name)
        elif measure:
            raise RunError(f"steps cannot be measured for {goal.name}: {reason}; --no-measure relies on the table alone")
        else:
            progress.say(f"steps are not measured for {goal.name}: {reason}")
    return tuple(names)


def out_of_reach(table: LatencyTable, progress: ProgressReporter) -> str | None:
    """Why nothing can be measured where this table was made; None if it can."""
    try:
        hello = _hello(table.info.target, progress)
    except UNREACHABLE as exc:
        return str(exc)
    for name in ("device", "version"):
        if hello.get(name) != table.info.device.get(name):
            what = "device" if name == "device" else "runtime"
            return f"the {what} that answers at {table.info.target.device} is not the one the table was made on"
    return None


def _hello(target: Target, progress: ProgressReporter) -> Mapping[str, Any]:
    """What the device says of itself before it runs a convolution of a few microseconds."""
    writer = FORMATS[target.model_format]
    with tempfile.TemporaryDirectory(prefix="glance_") as folder:
        path = Path(folder, f"spot_check.{writer.name}")
        path.write_bytes(writer.write(Graph.of_layer(conv2d((1, 8, 8, 8), 8, 1))))
        measured: Measured = measure_files([path], target, settings=SPOT_CHECK, progress=progress, wait_s=PATIENCE_S)[path]
        return measured.device
