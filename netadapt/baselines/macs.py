"""The same loop guided by multiply-accumulates: what the latency table was worth.

Equal to the adapted network: the measured latency; the original's trained weights; the loop's settings, data, seed and
executor; the long-term fine-tune. Not equal: what an iteration takes away is counted in MACs, so there may be more iterations or
fewer. It is a run folder of its own, which goes on when it is asked for again, or for a faster step.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from torch import nn

from netadapt.baselines.match import Match
from netadapt.errors import BudgetError, RunError
from netadapt.executors import Observers, open_executor
from netadapt.executors.jobs import CandidateJobs
from netadapt.resources import open_goals
from netadapt.runs.models import RunModels
from netadapt.runs.records import Choice
from netadapt.runs.run_folder import RunFolder
from netadapt.runs.training_schedule import Stage, origin
from netadapt.search.candidates import Candidate, narrowest
from netadapt.search.loop import adapt
from netadapt.search.schedule import planned_fraction
from netadapt.search.types import Evaluate, Result, Step

ITERATIONS = 1000
"""More than any search takes: the latency it has to reach ends it."""


class GuidedByMacs:
    title: ClassVar[str] = "guided by MACs"
    shape: ClassVar[str] = "macs"
    needs_latency: ClassVar[bool] = True
    starts_anew: ClassVar[bool] = False

    def choose(self, match: Match) -> Choice:
        first, *steps = search(match)
        return match.nearest(self.shape, {f"step{step.iteration:03d}": step.widths for step in steps or [first]})

    def origin(self, match: Match, choice: Choice) -> str:
        with RunFolder.open(folder_of(match)) as folder:
            return f"guided by MACs, {origin(folder.weights_path(_chosen(folder, choice).weights))}"

    def begin(self, match: Match, choice: Choice, seed: int) -> nn.Module:
        with RunFolder.open(folder_of(match)) as folder:
            return RunModels(folder, match.models.dataset).model(_chosen(folder, choice), finished=False)

    def stages(self, match: Match) -> tuple[Stage, ...]:
        return (match.stages.last,)


def folder_of(match: Match) -> Path:
    return match.models.run.path / "baselines" / "macs"


def search(match: Match) -> tuple[Step, ...]:
    """Go on until the network is predicted to be as fast as the step, or nothing is left to prune; all steps there are."""
    goal_ms = match.step_ms
    with _opened(match) as folder:
        _begin(match, folder)
        if match.predicted_ms(folder.steps[-1].widths) <= goal_ms:
            return folder.steps
        why = "the schedule takes away no more"
        try:
            with open_executor(
                match.executor, CandidateJobs.for_run(RunModels(folder, match.models.dataset)), Observers(match.progress)
            ) as executor:
                for step in _further(folder, executor):
                    folder.add_step(step)
                    found_ms = match.predicted_ms(step.widths)
                    match.progress.say(f"guided by MACs, step {step.iteration}: {found_ms:.3f} ms predicted of {goal_ms:.3f}")
                    if found_ms <= goal_ms:
                        return folder.steps
        except BudgetError as exc:  # it was pruned as far as it goes; what is nearest is still worth showing
            why = str(exc)
        match.progress.say(f"warning: guided by MACs, no step is predicted as fast as step {match.step.iteration}: {why}")
        return folder.steps


def _chosen(folder: RunFolder, choice: Choice) -> Step:
    return next(step for step in folder.steps if choice.label == f"step{step.iteration:03d}")


@contextmanager
def _opened(match: Match) -> Iterator[RunFolder]:
    run = match.models.run
    initial, search = float(run.graph.macs), replace(run.info.settings.search, max_iterations=ITERATIONS)
    least = narrowest(run.graph, search.width_step, search.min_width).macs
    planned = initial * (1 - planned_fraction(ITERATIONS, search.step, search.decay))
    budget = f"macs={max(1, least, round(planned + 1)):d}"
    settings = replace(run.info.settings, search=search, measure=False)
    info = replace(run.info, budgets=(budget,), tables={}, settings=settings)
    with RunFolder.create(folder_of(match), info, run.graph, resume=True) as folder:
        yield folder


def _begin(match: Match, folder: RunFolder) -> None:
    """The original network, as the run trained it."""
    run, first, macs = match.models.run, match.models.run.steps[0], float(match.models.run.graph.macs)
    if folder.steps:
        if folder.weights_path(first.weights).read_bytes() != run.weights_path(first.weights).read_bytes():
            raise RunError(f"{folder.path} was begun from another original network than {run.path} has; remove it")
        return
    shutil.copyfile(run.weights_path(first.weights), folder.weights_path(first.weights))
    candidate = Candidate(0, first.widths, {"macs": macs})
    result = Result(candidate, first.accuracy, first.weights, first.metrics)
    folder.add_step(Step(0, first.widths, {"macs": macs}, first.accuracy, first.weights, (result,)))


def _further(folder: RunFolder, executor: Evaluate) -> Iterator[Step]:
    """The steps that are not there yet."""
    goals, settings = open_goals(folder.info.goals, {}), folder.info.settings.search
    return adapt(folder.graph, goals, folder.recorded(executor), settings, folder.steps, folder.unfinished)
