"""What the loop and its neighbours speak of: results, steps, settings, and what evaluates and measures candidates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from netadapt.errors import SettingsError
from netadapt.search.bias import Checked
from netadapt.search.candidates import Candidate, Pruned

SELECT_BY = ("accuracy", "ratio")
IF_NO_CANDIDATE = ("halve", "join")


@dataclass(frozen=True, slots=True)
class Result:
    """A candidate that was fine-tuned and looked at."""

    candidate: Candidate
    accuracy: float
    """What picks the winner: top-1, or δ1 for depth, 0 to 1, on the holdout set; the test set must not take part in any choice."""
    weights: str
    """Where they are kept: a file name in the run's folder of weights."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What else the task tells of it on the holdout set, by names with units: rmse_m."""
    dropped: bool = False
    """It was among the worse half after some of its short-term steps and had no more of them."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.accuracy):
            raise ValueError(f"the accuracy of {self.candidate.block} must be a number, got {self.accuracy}")


@dataclass(frozen=True, slots=True)
class Step(Pruned):
    """One member of the family of networks: the winner of an iteration. Step 0 is the original network."""

    iteration: int
    widths: Mapping[str, int]
    prices: Mapping[str, float]
    """Of every resource, as predicted, by its budget's name."""
    accuracy: float
    weights: str
    results: tuple[Result, ...]
    """All candidates of the iteration, the winner among them, in the order of the network."""
    blocks: tuple[str, ...] = ()
    """What was pruned; nothing in the original."""
    targets: Mapping[str, float] = field(default_factory=dict)
    """What the prices had to meet; none for the original."""
    halvings: int = 0
    """How often this iteration's reductions were halved because no block alone could bring them."""
    checks: Mapping[str, Checked] = field(default_factory=dict)
    """What was measured of it on a device, by budgets' names."""
    bias: Mapping[str, float] = field(default_factory=dict)
    """By what predictions are multiplied from here on, as far as something was measured: smoothed measured over predicted."""

    @property
    def target(self) -> float | None:
        """What that had to meet; None for the original."""
        return next(iter(self.targets.values()), None)

    @property
    def misses(self) -> dict[str, Checked]:
        """Predictions that were off by more than their interval."""
        return {name: check for name, check in self.checks.items() if check.missed}

    @property
    def metrics(self) -> Mapping[str, float]:
        """The winner's other figures, on the holdout set."""
        return next((result.metrics for result in self.results if result.weights == self.weights), {})


@dataclass(frozen=True, slots=True)
class AdaptSettings:
    """The paper's knobs, in fractions of the initial price so that they suit any device."""

    step: float = 0.04
    """What the first iteration takes away at least. Larger is faster and costs accuracy."""
    decay: float = 0.96
    """The paper's: later iterations take away less, as there is less that can be spared."""
    max_iterations: int = 30
    width_step: int = 8
    """Widths stay multiples of this; kernels are fastest there."""
    min_width: int = 8
    select_by: str = "accuracy"
    """What picks it: `accuracy`, the paper's, or `ratio`, accuracy lost for the price saved."""
    if_no_candidate: str = "halve"
    """What happens where no block alone can bring a step: it is halved, or several blocks `join`."""
    successive_halving: bool = False
    """Drop the worse half of the candidates after a quarter, and again after half of the short-term steps."""

    def __post_init__(self) -> None:
        if not 0 < self.step < 1:
            raise SettingsError(f"--step is the fraction of the price to take away first, between 0 and 1, got {self.step:g}")
        if not 0 < self.decay <= 1:
            raise SettingsError(f"--decay must be above 0 and at most 1, got {self.decay:g}")
        for name in ("max_iterations", "width_step", "min_width"):
            if getattr(self, name) < 1:
                raise SettingsError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        for name, known in (("select_by", SELECT_BY), ("if_no_candidate", IF_NO_CANDIDATE)):
            if getattr(self, name) not in known:
                raise SettingsError(f"--{name.replace('_', '-')} is {' or '.join(known)}, not {getattr(self, name)!r}")


Evaluate = Callable[[Step | None, Sequence[Candidate]], Iterable[Result]]
"""Prunes the weights of a step to each candidate, fine-tunes and scores them, and yields results as they come, in any order.

With no step it is asked for the original network as it stands. A candidate with a `rung` gets that stretch of the short-term steps
only, from the rung's weights; see `netadapt.search.candidates.Rung`."""

Check = Callable[[Step], Mapping[str, Checked]]
"""Measures a winner on the devices that are attached: what came, by the budget's name; nothing for the others."""
