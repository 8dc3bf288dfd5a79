"""A baseline: the original, as wide as it was and from random weights, trained as the original and a step are."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from netadapt.baselines.match import Match
from netadapt.runs.models import randomly_initialised
from netadapt.runs.records import Choice
from netadapt.runs.training_schedule import Stage


class Unpruned:
    title: ClassVar[str] = "unpruned original"
    shape: ClassVar[str] = "original"
    needs_latency: ClassVar[bool] = False
    from_random_weights: ClassVar[bool] = True

    def choose(self, match: Match) -> Choice:
        return match.choice(self.shape, "original", match.models.step(0).widths)

    def origin(self, match: Match, choice: Choice) -> str:
        return "from random weights"

    def begin(self, match: Match, choice: Choice, seed: int) -> nn.Module:
        return randomly_initialised(match.models, choice.widths, seed)

    def stages(self, match: Match) -> tuple[Stage, ...]:
        return match.stages.from_scratch(0)
