"""The same search guided by multiply-accumulates, which shows what the latency table contributes.

Equal to the adapted network: the measured latency; the original's trained weights; the settings of the search, the data, the seed
and the executor; the long-term fine-tune. Different: the reductions of the iterations are in MACs, so that there may be more or
fewer iterations. The search has a run folder of its own, `baselines/macs` in the run's, and is continued by a later call, be it
after an interruption or for a faster step.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from torch import nn

from device_agents.support.atomic import write_whole
from device_agents.support.reading import read_bytes
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
from netadapt.search.types import Result, Step

ITERATIONS = 1000
"""More iterations than any search needs, as the search ends at the latency that it has to reach."""


class GuidedByMacs:
    """The step of the search guided by MACs whose measured latency is nearest to the adapted network's."""

    title: ClassVar[str] = "guided by MACs"
    shape: ClassVar[str] = "macs"
    needs_latency: ClassVar[bool] = True
    from_random_weights: ClassVar[bool] = False

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
    """The run folder of the search guided by MACs."""
    return match.models.run.path / "baselines" / "macs"


def search(match: Match) -> tuple[Step, ...]:
    """All steps of the search, which is continued until its network is predicted to be as fast as the step or is fully pruned.

    `RunError` if the folder holds a search from another original network; `ToolError` of tables and training.
    """
    goal_ms = match.step_ms
    with _opened(match) as folder:
        _begin(match, folder)
        if match.predicted_ms(folder.steps[-1].widths) <= goal_ms:
            return folder.steps
        goals, settings = open_goals(folder.info.goals, {}), folder.info.settings.search
        why = "the schedule ends"
        try:
            with open_executor(
                match.executor, CandidateJobs.for_run(RunModels(folder, match.models.dataset)), Observers(match.progress)
            ) as executor:
                evaluate = folder.recorded(executor)
                choices = folder.info.supernet.widths if folder.info.supernet else None
                seed, steps = folder.info.settings.seed, folder.steps
                for step in adapt(folder.graph, goals, evaluate, settings, steps, folder.unfinished, seed=seed, choices=choices):
                    folder.add_step(step)
                    found_ms = match.predicted_ms(step.widths)
                    match.progress.say(
                        f"guided by MACs, step {step.iteration}: {found_ms:.3f} ms predicted, {goal_ms:.3f} ms to reach"
                    )
                    if found_ms <= goal_ms:
                        return folder.steps
        except BudgetError as exc:  # it is fully pruned; its nearest step is still worth comparing
            why = str(exc)
        match.progress.say(f"warning: guided by MACs, no step is predicted to be as fast as step {match.step.iteration}: {why}")
        return folder.steps


def _chosen(folder: RunFolder, choice: Choice) -> Step:
    """The step that the choice names."""
    return next(step for step in folder.steps if choice.label == f"step{step.iteration:03d}")


def _opened(match: Match) -> RunFolder:
    """The run folder of the search, made if there is none. Its budget is the lowest that passes the check of budgets."""
    run = match.models.run
    initial, search = float(run.graph.macs), replace(run.info.settings.search, max_iterations=ITERATIONS)
    least = narrowest(run.graph, search.width_step, search.min_width).macs
    planned = initial * (1 - planned_fraction(ITERATIONS, search.step, search.decay))
    budget = f"macs={max(1, least, round(planned + 1)):d}"
    settings = replace(run.info.settings, search=search, measure=False)
    info = replace(run.info, budgets=(budget,), tables={}, settings=settings)
    return RunFolder.create(folder_of(match), info, run.graph, resume=True)


def _begin(match: Match, folder: RunFolder) -> None:
    """Copy the original network, as the run trained it, into a new search. `RunError` if the search has another original."""
    run, first, macs = match.models.run, match.models.run.steps[0], float(match.models.run.graph.macs)
    path, original = folder.weights_path(first.weights), read_bytes(run.weights_path(first.weights), RunError)
    if folder.steps:
        if read_bytes(path, RunError) != original:
            raise RunError(f"{folder.path} was begun from another original network than that of {run.path}; remove it")
        return
    write_whole(path, original, RunError)
    candidate = Candidate(0, first.widths, {"macs": macs})
    result = Result(candidate, first.accuracy, first.weights, first.metrics)
    folder.add_step(Step(0, first.widths, {"macs": macs}, first.accuracy, first.weights, (result,)))
