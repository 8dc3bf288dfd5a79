"""The adapted shape, trained from random weights: was it the widths that were worth finding, or the weights that came with them?

Equal to the adapted network: the network itself, so that there is no latency to match; the training steps of the original, of one
candidate in each iteration and of the long-term fine-tune, at their learning rates and on the same images. Not equal: it was
never wider.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from netadapt.baselines.match import Match, fresh
from netadapt.runs.records import Choice
from netadapt.runs.training_schedule import Stage


class Scratch:
    title: ClassVar[str] = "adapted shape from scratch"
    shape: ClassVar[str] = "adapted"
    needs_latency: ClassVar[bool] = False
    starts_anew: ClassVar[bool] = True

    def choose(self, match: Match) -> Choice:
        return match.choice(self.shape, f"step{match.step.iteration:03d}", match.step.widths)

    def origin(self, match: Match, choice: Choice) -> str:
        return "from random weights"

    def begin(self, match: Match, choice: Choice, seed: int) -> nn.Module:
        return fresh(match.models, choice.widths, seed)

    def stages(self, match: Match) -> tuple[Stage, ...]:
        return match.stages.from_scratch(match.step.iteration)
