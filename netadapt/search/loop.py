"""The NetAdapt loop: Algorithm 1 of Yang et al., 2018 (https://arxiv.org/abs/1804.03230).

Prune one block at a time. Each iteration asks every block for the widest it can stay if it alone has to meet the iteration's
targets, one for each budget, fine-tunes these candidates shortly and goes on with the most accurate; it ends within all budgets.
The original network is the one candidate of iteration 0. Training happens behind `evaluate`, measuring behind `check`; nothing
here knows weights or devices.

Other rules than the paper's are settings: winners by accuracy lost for what is saved, several blocks in a step that none can bring
alone, and clear losers dropped before they have had all their short-term steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from netadapt.errors import BudgetError, NetAdaptError
from netadapt.resources import Goal, Resource
from netadapt.search.bias import carried_on
from netadapt.search.candidates import Candidate, largest_share, narrowest, prices_of, propose_all
from netadapt.search.choosing import RUNGS, Ranking, first_rung, next_rung
from netadapt.search.joining import join_all
from netadapt.search.schedule import check_reachable, reduction
from netadapt.search.types import AdaptSettings, Check, Evaluate, Result, Step
from profiler.layers.graph import Graph

ROUNDING = 1e-9
"""A budget that was multiplied and divided by a bias is met when it is reached up to this."""


def check_budgets(graph: Graph, goals: Sequence[Goal], settings: AdaptSettings) -> dict[str, float]:
    """The budgets as amounts, by name. `BudgetError` if there is nothing to do, or one cannot be reached; costs no training."""
    initial = prices_of(graph, _resources(goals))
    limits = {goal.name: goal.budget.amount(initial[goal.name]) for goal in goals}
    if all(initial[name] <= limit for name, limit in limits.items()):
        spent = " and ".join(goal.budget.amount_text(initial[goal.name]) for goal in goals)
        asked = " and ".join(goal.budget.amount_text(limits[goal.name]) for goal in goals)
        within = "the budget: it takes" if len(goals) == 1 else "all budgets: it takes"
        raise BudgetError(
            f"{graph.name} is already within {within} {spent}, the budget{'s are' if len(goals) > 1 else ' is'} {asked}"
        )
    _check_limits(graph, goals, limits, settings)
    return limits


def _check_limits(graph: Graph, goals: Sequence[Goal], limits: Mapping[str, float], settings: AdaptSettings) -> None:
    """`BudgetError` for the first that cannot be reached by these settings, in predicted prices."""
    least = narrowest(graph, settings.width_step, settings.min_width)
    for goal in goals:
        initial, limit, lowest = goal.resource.price(graph), limits[goal.name], goal.resource.price(least)
        if limit < lowest:
            raise BudgetError(
                f"a budget of {goal.budget.amount_text(limit)}{_of(goal, goals)} cannot be reached: with every block at its "
                f"narrowest {graph.name} still takes {goal.budget.amount_text(lowest)}, {100 * lowest / initial:.1f} % of "
                f"{goal.budget.amount_text(initial)}"
            )
        what = "the budget" if len(goals) == 1 else f"the budget for {goal.name}"
        check_reachable(initial, limit, settings.step, settings.decay, settings.max_iterations, what)


def adapt(
    graph: Graph,
    goals: Sequence[Goal],
    evaluate: Evaluate,
    settings: AdaptSettings | None = None,
    history: Sequence[Step] = (),
    results: Iterable[Result] = (),
    *,
    check: Check | None = None,
) -> Iterator[Step]:
    """The steps that are not in `history` yet, each to be recorded by the caller before the next is asked for.

    Every step meets the targets of all goals. `results` are what was already recorded of the unfinished iteration; these candidates
    are not evaluated again. With `check` each winner is measured before it is handed out, and what the prediction was off by goes
    into the later targets.

    Budgets and schedule are checked at the call; `BudgetError` comes later only if pruning stops to help, or a device is found
    to be slower than a budget can bear.
    """
    settings = settings or AdaptSettings()
    check_budgets(graph, goals, settings)
    return _Run(graph, goals, evaluate, settings, tuple(results), check).steps(tuple(history))


@dataclass(frozen=True, slots=True)
class _Run:
    graph: Graph
    goals: Sequence[Goal]
    evaluate: Evaluate
    settings: AdaptSettings
    known: Sequence[Result]
    check: Check | None

    @property
    def resources(self) -> dict[str, Resource]:
        return _resources(self.goals)

    def steps(self, history: Sequence[Step]) -> Iterator[Step]:
        initial = prices_of(self.graph, self.resources)
        if not history:
            first = self._original(initial)
            yield first
        else:
            first = history[0]
        step = history[-1] if history else first
        limits = self._limits(first, step, initial)
        if first.bias and step is first:  # what the original really takes may have put a budget out of reach
            _check_limits(self.graph, self.goals, limits, self.settings)
        while not _within(step.prices, limits):
            if step.iteration >= self.settings.max_iterations:
                raise BudgetError(_out_of_iterations(step, limits, self.goals))
            step = self._iteration(step, limits, initial)
            yield step
            limits = self._limits(first, step, initial)

    def _original(self, initial: Mapping[str, float]) -> Step:
        original = Candidate(0, self.graph.widths, initial)
        (result,) = self._results(None, (original,))
        return self._checked(_step(result, (result,), {}, 0), {})

    def _limits(self, first: Step, step: Step, initial: Mapping[str, float]) -> dict[str, float]:
        """The budgets in predicted prices: what a table would say of a network that is just within when it is measured.

        A fraction is one of what the original takes, measured if it was.
        """
        limits = {}
        for goal in self.goals:
            found, bias = first.checks.get(goal.name), step.bias.get(goal.name)
            amount = goal.budget.amount(found.measured.value if found else initial[goal.name])
            limits[goal.name] = amount if bias is None else amount / bias * (1 + ROUNDING)
        return limits

    def _iteration(self, step: Step, limits: Mapping[str, float], initial: Mapping[str, float]) -> Step:
        iteration, prices = step.iteration + 1, step.prices
        unmet = {name: price for name, price in prices.items() if price > limits[name]}
        targets = {
            name: max(limit, prices[name] - reduction(iteration, initial[name], self.settings.step, self.settings.decay))
            if name in unmet
            else limit  # met: it only has to stay so
            for name, limit in limits.items()
        }
        candidates, targets, halvings = self._candidates(step, targets)
        ranking = Ranking(self.settings.select_by, step.accuracy, unmet, initial)
        results = self._in_rungs(step, candidates, ranking) if self.settings.successive_halving else self._results(step, candidates)
        winner = ranking.best([result for result in results if not result.dropped])
        return self._checked(_step(winner, results, targets, halvings), step.bias)

    def _candidates(self, step: Step, targets: dict[str, float]) -> tuple[tuple[Candidate, ...], dict[str, float], int]:
        """Candidates, the targets they meet, and how often the way there had to be halved until there were any."""
        graph, resources, iteration = self.graph.at_widths(step.widths), self.resources, step.iteration + 1
        widths = self.settings.width_step, self.settings.min_width
        candidates = propose_all(graph, resources, targets, *widths, iteration=iteration)
        if not candidates and self.settings.if_no_candidate == "join":
            candidates = join_all(graph, resources, targets, *widths, iteration=iteration)
            if not candidates:
                raise BudgetError(self._no_gain(step, "no blocks together"))
        if not candidates and largest_share(graph, resources, targets, *widths) <= 0:
            raise BudgetError(self._no_gain(step, "no block") + ", and so may --if-no-candidate join")
        halvings, prices = 0, step.prices
        while not candidates:
            targets = {name: (target + prices[name]) / 2 if prices[name] > target else target for name, target in targets.items()}
            halvings += 1
            candidates = propose_all(graph, resources, targets, *widths, iteration=iteration)
        return candidates, targets, halvings

    def _no_gain(self, step: Step, who: str) -> str:
        return (
            f"after step {step.iteration} {who} can be pruned any further to any gain: the network takes "
            f"{_amounts(step.prices, self.goals)}; a smaller --width-step or --min-width may help"
        )

    def _in_rungs(self, parent: Step, candidates: Sequence[Candidate], ranking: Ranking) -> list[Result]:
        """Successive halving: the last result of every candidate, in their order; those that were dropped say so."""
        if len(candidates) == 1:
            return self._results(parent, candidates)
        alive = self._results(parent, [first_rung(candidate) for candidate in candidates])
        last = {result.candidate.block: replace(result, dropped=True) for result in alive}
        for _ in RUNGS[1:]:
            alive = self._results(parent, [next_rung(result) for result in ranking.better_half(alive)])
            last |= {result.candidate.block: replace(result, dropped=True) for result in alive}
        last |= {result.candidate.block: result for result in alive}
        return [last[candidate.block] for candidate in candidates]

    def _results(self, parent: Step | None, candidates: Sequence[Candidate]) -> list[Result]:
        """One for each candidate, in their order; known ones are not evaluated again."""
        found = {result.candidate.block: result for result in self.known if result.candidate in candidates}
        missing = [candidate for candidate in candidates if candidate.block not in found]
        if missing:
            found |= {result.candidate.block: result for result in self.evaluate(parent, missing)}
        lost = [candidate.block for candidate in candidates if candidate.block not in found]
        if lost:
            raise NetAdaptError(f"no result came back for {lost[0] or 'the original network'}; run again with --resume")
        return [found[candidate.block] for candidate in candidates]

    def _checked(self, step: Step, bias: Mapping[str, float]) -> Step:
        checks = {} if self.check is None else dict(self.check(step))
        return replace(step, checks=checks, bias=carried_on(bias, checks))


def _resources(goals: Sequence[Goal]) -> dict[str, Resource]:
    return {goal.name: goal.resource for goal in goals}


def _within(prices: Mapping[str, float], limits: Mapping[str, float]) -> bool:
    return all(prices[name] <= limit for name, limit in limits.items())


def _step(winner: Result, results: Sequence[Result], targets: Mapping[str, float], halvings: int) -> Step:
    chosen = winner.candidate
    return Step(
        iteration=chosen.iteration,
        widths=chosen.widths,
        prices=chosen.prices,
        accuracy=winner.accuracy,
        weights=winner.weights,
        results=tuple(results),
        blocks=chosen.blocks,
        targets=targets,
        halvings=halvings,
    )


def _of(goal: Goal, goals: Sequence[Goal]) -> str:
    """Tells budgets apart where there are several."""
    return f" for {goal.name}" if len(goals) > 1 else ""


def _amounts(prices: Mapping[str, float], goals: Sequence[Goal]) -> str:
    return " and ".join(goal.budget.amount_text(prices[goal.name]) + _of(goal, goals) for goal in goals)


def _out_of_iterations(step: Step, limits: Mapping[str, float], goals: Sequence[Goal]) -> str:
    several = len(goals) > 1
    return (
        f"{step.iteration} iterations brought the price{'s' if several else ''} to {_amounts(step.prices, goals)}, the "
        f"budget{'s are' if several else ' is'} {_amounts(limits, goals)}; go on with --resume and a higher --max-iterations"
    )
