"""The adapted shape, trained from random weights, which separates the value of the widths from that of the inherited weights.

Equal to the adapted network: all widths, so that there is no latency to match; the training steps of the original, of one candidate
in each iteration and of the long-term fine-tune, at the same learning rates and on the same images. Different: it was never wider.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from netadapt.baselines.match import Match
from netadapt.runs.models import randomly_initialised
from netadapt.runs.records import Choice
from netadapt.runs.training_schedule import Stage


class Scratch:
    """The adapted network's shape, from random weights."""

    title: ClassVar[str] = "adapted shape from scratch"
    shape: ClassVar[str] = "adapted"
    needs_latency: ClassVar[bool] = False
    from_random_weights: ClassVar[bool] = True

    def choose(self, match: Match) -> Choice:
        return match.choice(self.shape, f"step{match.step.iteration:03d}", match.step.widths)

    def origin(self, match: Match, choice: Choice) -> str:
        return "from random weights"

    def begin(self, match: Match, choice: Choice, seed: int) -> nn.Module:
        return randomly_initialised(match.models, choice.widths, seed)

    def stages(self, match: Match) -> tuple[Stage, ...]:
        return match.stages.from_scratch(match.step.iteration)
