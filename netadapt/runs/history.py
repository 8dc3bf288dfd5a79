"""The steps of a run side by side, with all that is known of each."""

from __future__ import annotations

from dataclasses import dataclass

from netadapt.runs.records import Finished, NetworkSize, RunInfo
from netadapt.runs.run_folder import RunFolder
from netadapt.search.types import Step


@dataclass(frozen=True, slots=True)
class StepHistory:
    """One step of a run."""

    step: Step
    size: NetworkSize
    measured_ms: float | None
    """As it was measured whole or, failing that, during the search for the first budget that was measured."""
    finished: Finished | None
    """After its long-term fine-tune."""


@dataclass(frozen=True, slots=True)
class History:
    """The steps of a run, the original first."""

    info: RunInfo
    steps: tuple[StepHistory, ...]


def history_of(folder: RunFolder) -> History:
    finished, verified, rows = folder.finished, folder.verified, []
    for step in folder.steps:
        graph, whole = folder.graph.at_widths(step.widths), verified.get(step.iteration)
        during_search = next((step.checks[goal.name].measured for goal in folder.info.goals if goal.name in step.checks), None)
        measured = whole.measured_ms if whole else during_search
        size = NetworkSize(step.widths, graph.macs, graph.parameters)
        rows.append(StepHistory(step, size, measured.value if measured else None, finished.get(step.iteration)))
    return History(folder.info, tuple(rows))
