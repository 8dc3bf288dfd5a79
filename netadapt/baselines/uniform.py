"""Uniform pruning: the run's trained original, with every block pruned by the same factor at once.

Equal to the adapted network: the measured latency; the original's trained weights; the importance criterion; the steps of one
candidate's short-term fine-tune in each iteration, here without a break, and of the long-term fine-tune. Different: all blocks are
pruned by the same factor, and all at once. The network is that of the width multiplier, only its training differs.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from netadapt.baselines.match import Match
from netadapt.baselines.uniform_family import SHAPE, as_fast_as_step
from netadapt.pruning.pruner import prune_candidate
from netadapt.runs.records import Choice
from netadapt.runs.training_schedule import Stage, origin


class Uniform:
    """The trained original, pruned evenly."""

    title: ClassVar[str] = "uniform pruning"
    shape: ClassVar[str] = SHAPE
    needs_latency: ClassVar[bool] = True
    from_random_weights: ClassVar[bool] = False

    def choose(self, match: Match) -> Choice:
        return as_fast_as_step(match)

    def origin(self, match: Match, choice: Choice) -> str:
        run = match.models.run
        return origin(run.weights_path(run.steps[0].weights))

    def begin(self, match: Match, choice: Choice, seed: int) -> nn.Module:
        models = match.models
        original = models.step(0)
        model, graph = models.model(original, finished=False), models.graph(original.widths)
        return prune_candidate(model, graph, choice.widths, models.run.info.settings.pruning, models.dataset.train, seed)

    def stages(self, match: Match) -> tuple[Stage, ...]:
        return match.stages.pruned(match.step.iteration)
