"""The types of the loop's interface: results, steps, settings, and the functions that evaluate candidates and measure winners."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from netadapt.errors import SettingsError
from netadapt.search.bias import Checked
from netadapt.search.candidates import Candidate, Pruned

SELECT_BY = ("accuracy", "ratio")
"""Rules that select the winner of an iteration; see `netadapt.search.choosing`."""
IF_NO_CANDIDATE = ("halve", "join")
"""What happens if no block alone can bring an iteration's reduction."""
METHODS = ("single", "descent")
"""Searches: candidates that narrow a single block each, or samples that narrow several; see `netadapt.search.descent`."""
CANDIDATES = ("fine-tune", "supernet")
"""How candidates are judged: after a short-term fine-tune, or as they are in a super-network."""


@dataclass(frozen=True, slots=True)
class Result:
    """A candidate after its short-term fine-tune, with its scores."""

    candidate: Candidate
    accuracy: float
    """The score on the holdout set, from 0 to 1, that winners are selected by: top-1, or δ1 for depth. Never on the test set."""
    weights: str
    """A file name in the run's folder of weights."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The task's other figures on the holdout set, by names with units, such as rmse_m."""
    dropped: bool = False
    """True if successive halving dropped it before the end of its short-term fine-tune."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.accuracy):
            raise ValueError(f"the accuracy of {self.candidate.block} must be a number, got {self.accuracy}")


@dataclass(frozen=True, slots=True)
class Step(Pruned):
    """The winner of an iteration: one network of the family. Step 0 is the original network."""

    iteration: int
    widths: Mapping[str, int]
    """The width of every block, in channels."""
    prices: Mapping[str, float]
    """The predicted price for every budget, by its name, in the resource's unit."""
    accuracy: float
    """The accuracy on the holdout set, from 0 to 1."""
    weights: str
    """A file name in the run's folder of weights."""
    results: tuple[Result, ...]
    """All candidates of the iteration, the winner among them, in the order of the network."""
    blocks: tuple[str, ...] = ()
    """The blocks that this iteration pruned; none in the original."""
    targets: Mapping[str, float] = field(default_factory=dict)
    """The largest price that the iteration allowed for each budget, by its name; none for the original."""
    halvings: int = 0
    """How often this iteration's reductions were halved because no block alone could bring them."""
    checks: Mapping[str, Checked] = field(default_factory=dict)
    """The measurements of this network on devices, by the budgets' names."""
    bias: Mapping[str, float] = field(default_factory=dict)
    """The smoothed ratio of measured to predicted prices up to here, by the names of budgets with a measurement."""

    @property
    def target(self) -> float | None:
        """The target of the first budget; None for the original."""
        return next(iter(self.targets.values()), None)

    @property
    def misses(self) -> dict[str, Checked]:
        """The checks whose measured value lies outside the interval of its prediction."""
        return {name: check for name, check in self.checks.items() if check.missed}

    @property
    def metrics(self) -> Mapping[str, float]:
        """The winner's other figures on the holdout set, by names with units."""
        return next((result.metrics for result in self.results if result.weights == self.weights), {})


@dataclass(frozen=True, slots=True)
class AdaptSettings:
    """The settings of the search. `SettingsError` for an impossible one."""

    step: float = 0.04
    """The least reduction of the first iteration, as a fraction of the initial price. Larger is faster and costs accuracy."""
    decay: float = 0.96
    """The factor by which reductions shrink from iteration to iteration, as in the paper: later ones cost more accuracy."""
    max_iterations: int = 30
    width_step: int = 8
    """Widths are multiples of this number of channels, at which kernels are fastest."""
    min_width: int = 8
    """The smallest width of a block, in channels."""
    select_by: str = "accuracy"
    """The rule that selects winners: `accuracy` is the paper's, `ratio` is the accuracy lost for the price saved."""
    if_no_candidate: str = "halve"
    """If no block alone can bring a reduction, `halve` halves it, and `join` prunes several blocks."""
    successive_halving: bool = False
    """Drop the worse half of the candidates after a quarter, and again after half of the short-term steps."""
    method: str = "single"
    """A name in METHODS."""
    samples: int = 100
    """The number of samples that `descent` draws in each iteration."""
    blocks: int = 10
    """The largest number of blocks that a sample of `descent` narrows."""
    candidates: str = "fine-tune"
    """A name in CANDIDATES."""

    def __post_init__(self) -> None:
        if not 0 < self.step < 1:
            raise SettingsError(f"--step is a fraction of the initial price and must be above 0 and below 1, got {self.step:g}")
        if not 0 < self.decay <= 1:
            raise SettingsError(f"--decay must be above 0 and at most 1, got {self.decay:g}")
        for name in ("max_iterations", "width_step", "min_width", "samples", "blocks"):
            if getattr(self, name) < 1:
                raise SettingsError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        for name, field_name, known in (
            ("--select-by", "select_by", SELECT_BY), ("--if-no-candidate", "if_no_candidate", IF_NO_CANDIDATE),
            ("--search", "method", METHODS), ("--candidates", "candidates", CANDIDATES),
        ):  # fmt: skip
            if getattr(self, field_name) not in known:
                raise SettingsError(f"{name} must be {' or '.join(known)}, got {getattr(self, field_name)!r}")
        if self.method == "descent" and self.candidates != "supernet":
            raise SettingsError("--search descent judges its samples in a super-network; name one with --supernet")
        if self.candidates == "supernet" and self.successive_halving:
            raise SettingsError("--successive-halving shortens fine-tunes, which candidates in a super-network do not have")


Evaluate = Callable[[Step | None, Sequence[Candidate]], Iterable[Result]]
"""A function that prunes a step's network to each candidate, fine-tunes and scores it, and yields the results in any order.

Where the step is None, the only candidate is the original network, which is trained and not pruned. A candidate with a `rung` is
trained for that part of the short-term steps only; see `netadapt.search.candidates.Rung`."""

Check = Callable[[Step], Mapping[str, Checked]]
"""A function that measures a winner on devices: its checks by the names of budgets, without those that could not be measured."""
