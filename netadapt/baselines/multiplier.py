"""A width multiplier: the evenly thinner network, trained from random weights.

Equal to the adapted network: the measured latency; the training steps of the original, of one candidate in each iteration and of
the long-term fine-tune, at their learning rates and on the same images. Not equal: it never was wider, and no search was made.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from netadapt.baselines.match import Match, fresh
from netadapt.baselines.uniform_family import SHAPE, as_fast_as_step
from netadapt.runs.records import Choice
from netadapt.runs.training_schedule import Stage


class Multiplier:
    title: ClassVar[str] = "width multiplier"
    shape: ClassVar[str] = SHAPE
    needs_latency: ClassVar[bool] = True
    starts_anew: ClassVar[bool] = True

    def choose(self, match: Match) -> Choice:
        return as_fast_as_step(match)

    def origin(self, match: Match, choice: Choice) -> str:
        return "from random weights"

    def begin(self, match: Match, choice: Choice, seed: int) -> nn.Module:
        return fresh(match.models, choice.widths, seed)

    def stages(self, match: Match) -> tuple[Stage, ...]:
        return match.stages.from_scratch(match.step.iteration)
