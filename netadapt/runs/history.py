"""The steps of a run side by side, each with its size, measured latency and scores."""

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
    """The latency of the whole network or, without one, that of the search's check for the first measured budget."""
    finished: Finished | None
    """The record of its long-term fine-tune; None before there was one."""


@dataclass(frozen=True, slots=True)
class History:
    """The steps of a run, the original first."""

    info: RunInfo
    steps: tuple[StepHistory, ...]


def history_of(folder: RunFolder) -> History:
    """The history of the run in this folder. `RunError` if one of its files is damaged."""
    finished, verified, rows = folder.finished, folder.verified, []
    for step in folder.steps:
        graph, whole = folder.graph.at_widths(step.widths), verified.get(step.iteration)
        during_search = next((step.checks[goal.name].measured for goal in folder.info.goals if goal.name in step.checks), None)
        measured = whole.measured_ms if whole else during_search
        size = NetworkSize(step.widths, graph.macs, graph.parameters)
        rows.append(StepHistory(step, size, measured.value if measured else None, finished.get(step.iteration)))
    return History(folder.info, tuple(rows))
