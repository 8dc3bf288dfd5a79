"""The width multiplier: every block narrower by the same factor, trained from random weights.

Equal to the adapted network: the measured latency; the training steps of the original, of one candidate in each iteration and of
the long-term fine-tune, at the same learning rates and on the same images. Different: it was never wider, and there was no search.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from netadapt.baselines.match import Match
from netadapt.baselines.uniform_family import SHAPE, as_fast_as_step
from netadapt.runs.models import randomly_initialised
from netadapt.runs.records import Choice
from netadapt.runs.training_schedule import Stage


class Multiplier:
    """The network of a width multiplier, from random weights."""

    title: ClassVar[str] = "width multiplier"
    shape: ClassVar[str] = SHAPE
    needs_latency: ClassVar[bool] = True
    from_random_weights: ClassVar[bool] = True

    def choose(self, match: Match) -> Choice:
        return as_fast_as_step(match)

    def origin(self, match: Match, choice: Choice) -> str:
        return "from random weights"

    def begin(self, match: Match, choice: Choice, seed: int) -> nn.Module:
        return randomly_initialised(match.models, choice.widths, seed)

    def stages(self, match: Match) -> tuple[Stage, ...]:
        return match.stages.from_scratch(match.step.iteration)
