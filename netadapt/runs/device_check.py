"""Winners measured on the devices that their latencies are predicted for, as far as these can be reached.

A step is exported as it would be shipped and measured whole, as `netadapt measure` does, so that a run learns while it lasts what
its tables are off by. A device that cannot be reached, or is another than the table's, costs a run nothing but this knowledge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from device_agents.errors import DeviceError
from netadapt.errors import RunError
from netadapt.resources import Goal
from netadapt.runs.measure import exported
from netadapt.runs.models import RunModels
from netadapt.search.bias import Checked
from netadapt.search.types import Step
from profiler.devices.identity import Identity
from profiler.errors import RunnerError
from profiler.interval import Interval
from profiler.measure.benchmark import measure_files
from profiler.measure.disturbance import DRIFT_PERCENT
from profiler.measure.opening import PATIENCE_S, open_session
from profiler.progress import ProgressReporter
from profiler.tables.growing import GrowingTable
from profiler.tables.table import Table

UNREACHABLE = (DeviceError, RunnerError)
TRIES = 3
"""A winner is measured again, as often in all, while the device is slower than it was for others."""


@dataclass(frozen=True, slots=True)
class DeviceCheck:
    """The loop's `check`, for the budgets whose devices can be reached."""

    models: RunModels
    tables: Mapping[str, GrowingTable]
    """The growing table of each measured latency budget, by the budget's name."""
    progress: ProgressReporter
    quiet_ms: dict[str, float] = field(default_factory=dict)
    """The shortest latency of the reference layer beside any winner so far, by the budget's name."""

    def __call__(self, step: Step) -> dict[str, Checked]:
        """The measured and the predicted latency by budget.

        A device that is gone by now gets a warning and no entry. So does one on which even the reference layer takes longer than it
        did beside another winner: what slows a machine down for a minute must not be taken for an error of the table. The first
        winner, by which budgets in per cent are set, has no other to be compared with: where it takes longer than its prediction
        allows, it is measured once more and the shorter latency counts, as other load only adds time.
        """
        found: dict[str, Checked] = {}
        for name, table in self.tables.items():
            first = name not in self.quiet_ms
            try:
                measured_ms = self._measured_ms(name, table.table, step)
                if measured_ms is None:
                    continue
                checked = Checked(measured_ms, table.predict(self.models.graph(step.widths)).latency_ms)
                if first and checked.missed and checked.ratio > 1:
                    again_ms = self._measured_ms(name, table.table, step) or measured_ms
                    checked = replace(checked, measured=min(measured_ms, again_ms, key=lambda found_ms: found_ms.value))
            except UNREACHABLE as exc:
                self.progress.say(f"warning: step {step.iteration} was not measured for {name}: {exc}")
                continue
            found[name] = checked
        return found

    def _measured_ms(self, name: str, table: Table, step: Step) -> Interval | None:
        target = table.info.target
        path = exported(self.models, step, target.model_format)
        slower = 0.0
        for _ in range(TRIES):
            measured = measure_files([path], target, settings=table.info.settings, progress=self.progress, wait_s=PATIENCE_S)[path]
            if measured.reference_ms is None:
                return measured.latency_ms
            quiet_ms = min(measured.reference_ms, self.quiet_ms.get(name, measured.reference_ms))
            self.quiet_ms[name] = quiet_ms
            slower = 100 * (measured.reference_ms / quiet_ms - 1)
            if slower <= DRIFT_PERCENT:
                return measured.latency_ms
        self.progress.say(
            f"warning: step {step.iteration} was not measured for {name}: the device was {slower:.0f} % slower than for other steps"
        )
        return None


def within_reach(
    goals: Iterable[Goal], tables: Mapping[str, Table], measure: bool | None, progress: ProgressReporter
) -> tuple[str, ...]:
    """Names of the latency budgets that winners can be measured for; none where `measure` is false.

    `RunError` where `measure` is true and a device is out of reach or not the one its table was made on; where it is None such a
    device is reported and left out.
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


def out_of_reach(table: Table, progress: ProgressReporter) -> str | None:
    """The reason why nothing can be measured on the device of this table; None if it can be."""
    target = table.info.target
    if table.info.modelled:
        return f"{target.device} is modelled, and nothing can be measured there"
    try:
        with open_session(target, progress=progress, wait_s=PATIENCE_S) as session:
            state = session.conditioning.state if session.conditioning is not None else {}
            found = Identity.of_probe(session.probe(), target.runtime, state)
    except UNREACHABLE as exc:
        return str(exc)
    if changed := Identity.of_fingerprint(table.info.device).differences(found):
        return f"the device that answers at {target.device} is not the one the table was made on ({'; '.join(changed)})"
    return None
