"""The NetAdapt loop: Algorithm 1 of Yang et al., 2018 (https://arxiv.org/abs/1804.03230).

Narrow one block at a time. Each iteration asks every block for the widest it can stay if it alone has to meet the iteration's
target, fine-tunes these candidates shortly and goes on with the most accurate; it ends within the budget. The original network
is the one candidate of iteration 0. Training happens behind `evaluate`; nothing here knows weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from netadapt.candidates import Candidate, lowest_price, propose_all, smallest_price
from netadapt.errors import BudgetError, NetAdaptError, SettingsError
from netadapt.resources import Budget, Resource, amount_text
from netadapt.schedule import check_reachable, reduction
from profiler.graph import Graph


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

    def __post_init__(self) -> None:
        if not math.isfinite(self.accuracy):
            raise ValueError(f"the accuracy of {self.candidate.block} must be a number, got {self.accuracy}")


@dataclass(frozen=True, slots=True)
class Step:
    """One member of the family of networks: the winner of an iteration. Step 0 is the original network."""

    iteration: int
    block: str | None
    """What was narrowed; None for the original."""
    widths: Mapping[str, int]
    price: float
    target: float | None
    """What the price had to meet; None for the original."""
    accuracy: float
    weights: str
    results: tuple[Result, ...]
    """All candidates of the iteration, the winner among them, in the order of the network."""
    halvings: int = 0
    """How often this iteration's reduction was halved because no block alone could bring it."""

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

    def __post_init__(self) -> None:
        if not 0 < self.step < 1:
            raise SettingsError(f"--step is the fraction of the price to take away first, between 0 and 1, got {self.step:g}")
        if not 0 < self.decay <= 1:
            raise SettingsError(f"--decay must be above 0 and at most 1, got {self.decay:g}")
        for name in ("max_iterations", "width_step", "min_width"):
            if getattr(self, name) < 1:
                raise SettingsError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")


Evaluate = Callable[[Step | None, Sequence[Candidate]], Iterable[Result]]
"""Narrows the weights of a step to each candidate, fine-tunes and scores them, and yields results as they come, in any order.

With no step it is asked for the original network as it stands."""


def check_budget(graph: Graph, resource: Resource, budget: Budget, settings: AdaptSettings) -> float:
    """The budget as an amount. `BudgetError` if there is nothing to do, or it cannot be reached; costs no training."""
    initial = resource.price(graph)
    limit = budget.amount(initial)
    now, asked = amount_text(initial, resource.unit), amount_text(limit, resource.unit)
    if initial <= limit:
        raise BudgetError(f"{graph.name} is already within the budget: it takes {now}, the budget is {asked}")
    least = smallest_price(graph, resource, settings.width_step, settings.min_width)
    if limit < least:
        raise BudgetError(
            f"a budget of {asked} cannot be reached: with every block at its narrowest {graph.name} still takes "
            f"{amount_text(least, resource.unit)}, {100 * least / initial:.1f} % of {now}"
        )
    check_reachable(initial, limit, settings.step, settings.decay, settings.max_iterations)
    return limit


def adapt(
    graph: Graph,
    resource: Resource,
    budget: Budget,
    evaluate: Evaluate,
    settings: AdaptSettings | None = None,
    history: Sequence[Step] = (),
    results: Iterable[Result] = (),
) -> Iterator[Step]:
    """The steps that are not in `history` yet, each to be recorded by the caller before the next is asked for.

    `results` are what was already recorded of the unfinished iteration; these candidates are not evaluated again. Budget and
    schedule are checked at the call; `BudgetError` comes later only if narrowing stops to help.
    """
    settings = settings or AdaptSettings()
    limit = check_budget(graph, resource, budget, settings)
    return _iterations(graph, resource, limit, evaluate, settings, history[-1] if history else None, tuple(results))


def _iterations(
    graph: Graph,
    resource: Resource,
    limit: float,
    evaluate: Evaluate,
    settings: AdaptSettings,
    last: Step | None,
    known: Sequence[Result],
) -> Iterator[Step]:
    initial = resource.price(graph)
    step = last
    if step is None:
        original = Candidate(0, None, graph.widths, initial)
        step = _best(_results(evaluate, None, (original,), known), None, 0)
        yield step
    while step.price > limit:
        if step.iteration >= settings.max_iterations:
            raise BudgetError(_out_of_iterations(step, limit, resource))
        iteration = step.iteration + 1
        target = max(limit, step.price - reduction(iteration, initial, settings.step, settings.decay))
        candidates, target, halvings = _candidates(graph.at_widths(step.widths), resource, target, step, settings)
        step = _best(_results(evaluate, step, candidates, known), target, halvings)
        yield step


def _candidates(
    graph: Graph, resource: Resource, target: float, step: Step, settings: AdaptSettings
) -> tuple[tuple[Candidate, ...], float, int]:
    """Candidates, the target they meet, and how often its distance had to be halved until there were any."""
    widths = settings.width_step, settings.min_width
    iteration, halvings = step.iteration + 1, 0
    candidates = propose_all(graph, resource, target, *widths, iteration=iteration)
    if not candidates:
        least = lowest_price(graph, resource, *widths)
        if least is None or least >= step.price:
            raise BudgetError(
                f"after step {step.iteration} no block can be narrowed any further to any gain: the network takes "
                f"{amount_text(step.price, resource.unit)}; a smaller --width-step or --min-width may help"
            )
        while target < least:
            target = (target + step.price) / 2
            halvings += 1
        candidates = propose_all(graph, resource, target, *widths, iteration=iteration)
    return candidates, target, halvings


def _results(evaluate: Evaluate, parent: Step | None, candidates: Sequence[Candidate], known: Sequence[Result]) -> list[Result]:
    """One for each candidate, in their order; known ones are not evaluated again."""
    found = {result.candidate.block: result for result in known if result.candidate in candidates}
    missing = [candidate for candidate in candidates if candidate.block not in found]
    if missing:
        found |= {result.candidate.block: result for result in evaluate(parent, missing)}
    lost = [candidate.block for candidate in candidates if candidate.block not in found]
    if lost:
        raise NetAdaptError(f"no result came back for {lost[0] or 'the original network'}; run again with --resume")
    return [found[candidate.block] for candidate in candidates]


def _best(results: Sequence[Result], target: float | None, halvings: int) -> Step:
    """The most accurate; of equals the cheapest, then the one that comes first in the network."""
    winner = max(results, key=lambda result: (result.accuracy, -result.candidate.price))  # max() takes the first of equals
    chosen = winner.candidate
    weights, all_results = winner.weights, tuple(results)
    return Step(
        chosen.iteration, chosen.block, chosen.widths, chosen.price, target, winner.accuracy, weights, all_results, halvings
    )


def _out_of_iterations(step: Step, limit: float, resource: Resource) -> str:
    return (
        f"{step.iteration} iterations brought the price to {amount_text(step.price, resource.unit)}, the budget is "
        f"{amount_text(limit, resource.unit)}; go on with --resume and a higher --max-iterations"
    )
