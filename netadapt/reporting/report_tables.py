"""The report's tables: what a run folder holds, read once, and its networks side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from netadapt.baselines import BASELINES, title_of
from netadapt.errors import RunError
from netadapt.runs.multi_seed import Spread, of_each
from netadapt.runs.records import Baseline, ExportedFile, LayerLatency, RunInfo, Verified
from netadapt.runs.run_folder import RunFolder
from netadapt.search.bias import Checked
from netadapt.search.types import Step
from netadapt.training.types import Task
from profiler.interval import Interval
from profiler.layers.graph import Graph


@dataclass(frozen=True, slots=True)
class Row:
    """A network in the table on top of the page."""

    name: str
    note: str
    predicted: Interval | None
    """Milliseconds, as the measured latency."""
    measured: Interval | None
    accuracy: Spread
    accuracy_on: str
    """test or holdout."""
    macs: int
    parameters: int
    metrics: Mapping[str, Spread] = field(default_factory=dict)
    """The task's other figures, on the same images."""
    kind: str = ""
    """Of netadapt.baselines.BASELINES; empty for steps of the run."""

    def speedup_over(self, original: Row) -> float | None:
        """By measured latencies if both are, else by predicted ones; None if there are neither."""
        for mine, other in ((self.measured, original.measured), (self.predicted, original.predicted)):
            if mine is not None and other is not None:
                return other.value / mine.value
        return None


@dataclass(frozen=True, slots=True)
class Contents:
    """What a run folder holds, read once."""

    path: Path
    info: RunInfo
    graph: Graph
    steps: tuple[Step, ...]
    chosen: Step
    accuracy: Mapping[int, Spread]
    """On the test set, of the steps that were fine-tuned to the end."""
    metrics: Mapping[int, Mapping[str, Spread]]
    """The task's other figures of the same."""
    verified: Mapping[int, Verified]
    """Measured where the run is at home."""
    baselines: tuple[Baseline, ...]
    layers: tuple[LayerLatency, ...]
    exported: tuple[ExportedFile, ...] = ()
    elsewhere: tuple[Verified, ...] = ()
    """Measured on other devices or with other runtimes."""

    @classmethod
    def of(cls, run: RunFolder) -> Contents:
        steps, finished = run.steps, run.finished
        if not steps:
            raise RunError(f"{run.path} has no step to report yet; go on with `netadapt run --resume`")
        chosen = max((step for step in finished if step < len(steps)), default=0) or len(steps) - 1
        accuracy = {number: Spread.of(item.accuracies) for number, item in finished.items()}
        metrics = {number: of_each(item.all_metrics) for number, item in finished.items()}
        baselines = tuple(item for item in run.baselines if item.target == run.home or run.home is None)
        elsewhere = tuple(item for item in run.measured if item.target != run.home)
        return cls(
            run.path, run.info, run.graph, steps, steps[chosen], accuracy, metrics, run.verified, baselines, run.layers,
            run.exported, elsewhere,
        )  # fmt: skip

    @property
    def unit(self) -> str:
        return self.info.goals[0].unit

    @property
    def measurable(self) -> bool:
        """True if prices stand beside measurements in the same unit, which the headings then name once."""
        return self.info.goals[0].measurable

    @property
    def task(self) -> Task:
        return self.info.settings.task


def summary(contents: Contents) -> list[Row]:
    """The original, the chosen step and, of every kind of baseline, the one nearest to it in latency."""
    rows = [_step_row(contents, contents.steps[0], "original")]
    if contents.chosen.iteration > 0:
        rows.append(_step_row(contents, contents.chosen, "adapted"))
    kinds = sorted({item.kind for item in contents.baselines}, key=_place)
    return rows + [
        _nearest_baseline([item for item in contents.baselines if item.kind == kind], contents.chosen.iteration, rows[-1])
        for kind in kinds
    ]


def _place(kind: str) -> tuple[int, str]:
    """As they are listed; kinds of another version last."""
    return (list(BASELINES).index(kind) if kind in BASELINES else len(BASELINES), kind)


@dataclass(frozen=True, slots=True)
class GuidedRow:
    """A line of the comparison of what guided the search."""

    name: str
    accuracy: Spread
    macs: int
    measured: Interval
    """Milliseconds."""
    macs_share: float
    """The share of the MACs of the network whose search was guided by another resource."""
    latency_share: float
    macs_of_original: float
    latency_of_original: float


def guided(rows: Sequence[Row]) -> list[GuidedRow]:
    """The original, the network of the search guided by another resource, and the adapted one.

    Empty unless all three have been measured and tested.
    """
    found = {row.kind or row.name: row for row in rows}
    other_guide = next((name for name, item in BASELINES.items() if item.guided_by), "")
    if not other_guide:
        return []
    named = {"original": "original", other_guide: title_of(other_guide), "adapted": "guided by latency"}
    if not all(name in found and found[name].accuracy_on == "test" for name in named):
        return []
    lines = [(label, found[name], found[name].measured) for name, label in named.items()]
    if any(measured is None for _, _, measured in lines):
        return []
    first, other = found["original"], found[other_guide]
    assert first.measured is not None and other.measured is not None
    return [
        GuidedRow(
            label, row.accuracy, row.macs, measured, row.macs / other.macs, measured.value / other.measured.value,
            row.macs / first.macs, measured.value / first.measured.value,
        )
        for label, row, measured in lines
        if measured is not None
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class CheckRow:
    """What was measured of a step while the search went on."""

    step: int
    budget: str
    unit: str
    checked: Checked
    bias: float


def checks(contents: Contents) -> Iterator[CheckRow]:
    units = {goal.name: goal.unit for goal in contents.info.goals}
    for step in contents.steps:
        for name, checked in step.checks.items():
            yield CheckRow(step.iteration, name, units.get(name, ""), checked, step.bias.get(name, checked.ratio))


def _step_row(contents: Contents, step: Step, name: str) -> Row:
    graph, number = contents.graph.at_widths(step.widths), step.iteration
    checked, tested = contents.verified.get(number), contents.accuracy.get(number)
    predicted = Interval.unknown(step.price) if contents.info.goals[0].measurable else None
    measured = None
    if checked is not None:
        measured = checked.measured_ms
        predicted = checked.predicted_ms or predicted
    note = contents.info.network if number == 0 else f"step {number} of {len(contents.steps) - 1}"
    accuracy, accuracy_on = (Spread.of([step.accuracy]), "holdout") if tested is None else (tested, "test")
    metrics = of_each([step.metrics]) if tested is None else contents.metrics[number]
    return Row(name, note, predicted, measured, accuracy, accuracy_on, graph.macs, graph.parameters, metrics)


def _baseline_row(item: Baseline) -> Row:
    accuracy, metrics = Spread.of(item.accuracies), of_each(item.all_metrics)
    return Row(
        title_of(item.kind),
        item.name,
        item.predicted_ms,
        item.measured_ms,
        accuracy,
        "test",
        item.size.macs,
        item.size.parameters,
        metrics,
        item.kind,
    )


def _nearest_baseline(baselines: Sequence[Baseline], step: int, adapted: Row) -> Row:
    """The one that was found for this step; else the nearest by measured latency, or by predicted where that is missing."""

    def distance(item: Baseline) -> tuple[bool, float]:
        row = _baseline_row(item)
        for mine, other in ((row.measured, adapted.measured), (row.predicted, adapted.predicted)):
            if mine is not None and other is not None:
                return item.step != step, abs(mine.value - other.value)
        return item.step != step, float("inf")

    return _baseline_row(min(baselines, key=distance))
