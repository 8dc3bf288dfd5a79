"""The report's tables: the contents of a run folder, read once, and its networks side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from netadapt.baselines import BASELINES, title_of
from netadapt.errors import RunError
from netadapt.runs.multi_seed import Spread, of_each
from netadapt.runs.prices import TablePrices, prices_by_table
from netadapt.runs.records import Baseline, ExportedFile, LayerLatency, RunInfo, Verified
from netadapt.runs.run_folder import RunFolder
from netadapt.search.bias import Checked
from netadapt.search.types import Step
from netadapt.training.types import Task
from profiler.interval import Interval
from profiler.layers.graph import Graph
from profiler.runtimes import MODELLED_RUNTIME


@dataclass(frozen=True, slots=True)
class Row:
    """A network in the summary at the top of the page."""

    name: str
    note: str
    """A line below the name."""
    predicted: Interval | None
    """The predicted latency in ms."""
    measured: Interval | None
    """The measured latency in ms."""
    accuracy: Spread
    accuracy_on: str
    """The images of the accuracy: test or holdout."""
    macs: int
    parameters: int
    metrics: Mapping[str, Spread] = field(default_factory=dict)
    """The task's other figures, on the same images."""
    kind: str = ""
    """A name in netadapt.baselines.BASELINES; empty for steps of the run."""

    def speedup_over(self, original: Row) -> float | None:
        """The ratio of measured latencies or, unless both are measured, of predicted ones; None if one has neither."""
        for mine, other in ((self.measured, original.measured), (self.predicted, original.predicted)):
            if mine is not None and other is not None:
                return other.value / mine.value
        return None


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of a run folder."""

    path: Path
    info: RunInfo
    graph: Graph
    steps: tuple[Step, ...]
    chosen: Step
    """The step that the report is about: the last that had its long-term fine-tune, otherwise the last."""
    accuracy: Mapping[int, Spread]
    """The accuracy on the test set of each step that had its long-term fine-tune."""
    metrics: Mapping[int, Mapping[str, Spread]]
    """The task's other figures of the same steps."""
    verified: Mapping[int, Verified]
    """The measurements on the run's own device and runtime, by step."""
    baselines: tuple[Baseline, ...]
    layers: tuple[LayerLatency, ...]
    exported: tuple[ExportedFile, ...] = ()
    elsewhere: tuple[Verified, ...] = ()
    """The measurements on other devices or with other runtimes."""
    by_table: tuple[TablePrices, ...] = ()
    """The steps by each table, where there are several or one is modelled."""

    @classmethod
    def of(cls, run: RunFolder) -> Contents:
        """Read the run folder. `RunError` if it has no step yet or is damaged."""
        steps, finished = run.steps, run.finished
        if not steps:
            raise RunError(f"{run.path} has no step to report yet; go on with `netadapt resume {run.path}`")
        chosen = max((step for step in finished if step < len(steps)), default=0) or len(steps) - 1
        accuracy = {number: Spread.of(item.accuracies) for number, item in finished.items()}
        metrics = {number: of_each(item.all_metrics) for number, item in finished.items()}
        baselines = tuple(item for item in run.baselines if item.target == run.home or run.home is None)
        elsewhere = tuple(item for item in run.measured if item.target != run.home)
        return cls(
            run.path, run.info, run.graph, steps, steps[chosen], accuracy, metrics, run.verified, baselines, run.layers,
            run.exported, elsewhere, _by_table(run),
        )  # fmt: skip

    @property
    def unit(self) -> str:
        """The unit of the first budget's prices."""
        return self.info.goals[0].unit

    @property
    def measurable(self) -> bool:
        """True if the first budget's prices can be measured; the headings then have the unit, otherwise each amount has it."""
        return self.info.goals[0].measurable

    @property
    def task(self) -> Task:
        return self.info.settings.task


def _by_table(run: RunFolder) -> tuple[TablePrices, ...]:
    """Empty for the single table of a device, whose latencies are those of the steps."""
    tables = run.info.tables.values()
    told = len(tables) > 1 or any(facts.runtime == MODELLED_RUNTIME for facts in tables)
    return prices_by_table(run) if told else ()


def summary(contents: Contents) -> list[Row]:
    """The original, the chosen step and, of each kind of baseline, the one found for that step or else the nearest in latency."""
    rows = [_step_row(contents, contents.steps[0], "original")]
    if contents.chosen.iteration > 0:
        rows.append(_step_row(contents, contents.chosen, "adapted"))
    # in the order of the registry; kinds that another version of this project knew come last
    known = [kind for kind in BASELINES if any(item.kind == kind for item in contents.baselines)]
    kinds = known + sorted({item.kind for item in contents.baselines}.difference(known))
    return rows + [
        _nearest_baseline([item for item in contents.baselines if item.kind == kind], contents.chosen.iteration, rows[-1])
        for kind in kinds
    ]


@dataclass(frozen=True, slots=True)
class GuidedRow:
    """A line of the comparison of searches that were guided by different resources."""

    name: str
    accuracy: Spread
    macs: int
    measured: Interval
    """The measured latency in ms."""
    macs_share: float
    """Its MACs as a fraction of those of the network found by the search guided by another resource."""
    latency_share: float
    """Its measured latency as a fraction of that network's."""
    macs_of_original: float
    """Its MACs as a fraction of the original's."""
    latency_of_original: float
    """Its measured latency as a fraction of the original's."""


def guided(rows: Sequence[Row]) -> list[GuidedRow]:
    """The original, the network of the search guided by another resource, and the adapted network, in this order.

    Empty unless all three are measured and have scores on the test set.
    """
    found = {row.kind or row.name: row for row in rows if row.accuracy_on == "test"}
    other_guide = next((name for name, item in BASELINES.items() if item.guided_by), "")
    labels = {"original": "original", other_guide: title_of(other_guide) if other_guide else "", "adapted": "guided by latency"}
    lines = [
        (label, found[name], latency_ms)
        for name, label in labels.items()
        if name in found and (latency_ms := found[name].measured) is not None
    ]
    if len(lines) < len(labels):
        return []
    (_, first, first_ms), (_, other, other_ms), _ = lines
    return [
        GuidedRow(
            label, row.accuracy, row.macs, latency_ms, row.macs / other.macs, latency_ms.value / other_ms.value,
            row.macs / first.macs, latency_ms.value / first_ms.value,
        )
        for label, row, latency_ms in lines
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class CheckRow:
    """A measurement of a step during the search."""

    step: int
    budget: str
    unit: str
    checked: Checked
    bias: float
    """The budget's bias after this measurement."""


def checks(contents: Contents) -> Iterator[CheckRow]:
    """The measurements during the search, by step and budget."""
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
    """The baseline that was found for this step or, if there is none, the nearest to it in latency.

    Latencies are the measured ones, or the predicted ones where a measured one is missing.
    """

    def distance(item: Baseline) -> tuple[bool, float]:
        row = _baseline_row(item)
        for mine, other in ((row.measured, adapted.measured), (row.predicted, adapted.predicted)):
            if mine is not None and other is not None:
                return item.step != step, abs(mine.value - other.value)
        return item.step != step, float("inf")

    return _baseline_row(min(baselines, key=distance))
