"""The NetAdapt loop: Algorithm 1 of Yang et al., 2018 (https://arxiv.org/abs/1804.03230).

Each iteration has a target for each budget. The candidates of an iteration prune one block each, as little as the targets allow.
They are fine-tuned for a short term, and the most accurate is the next network. The loop ends once the network is within all
budgets. The original network is the only candidate of iteration 0. Training is done by the function `evaluate` and measuring by
`check`: nothing here depends on weights or devices.

Settings can replace the paper's rules: winners by the accuracy lost for the price saved, several blocks for a reduction that no
block can bring alone, successive halving of the candidates, and samples that change several blocks (netadapt.search.descent).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from netadapt.errors import BudgetError, NetAdaptError
from netadapt.resources import Goal, Resource
from netadapt.search.bias import updated_bias
from netadapt.search.candidates import Candidate, largest_share, narrowest, prices_of, propose_all
from netadapt.search.choosing import RUNGS, Ranking, first_rung, next_rung
from netadapt.search.descent import possible_choices, sample_all, shrink_all
from netadapt.search.joining import join_all
from netadapt.search.schedule import check_reachable, reduction
from netadapt.search.types import AdaptSettings, Check, Evaluate, Result, Step
from profiler.layers.graph import Graph

ROUNDING = 1e-9
"""The relative tolerance of a budget that was divided by a bias, which may round it down below a price that equals it."""


def check_budgets(graph: Graph, goals: Sequence[Goal], settings: AdaptSettings) -> dict[str, float]:
    """The budgets as amounts in their resources' units, by name. It costs no training.

    `BudgetError` if all budgets are met already, or if one cannot be reached with these settings.
    """
    initial = prices_of(graph, _resources(goals))
    limits = {goal.name: goal.budget.amount(initial[goal.name]) for goal in goals}
    if all(initial[name] <= limit for name, limit in limits.items()):
        spent = " and ".join(goal.budget.amount_text(initial[goal.name]) for goal in goals)
        asked = " and ".join(goal.budget.amount_text(limits[goal.name]) for goal in goals)
        within = "the budget: it takes" if len(goals) == 1 else "all budgets: it takes"
        raise BudgetError(
            f"{graph.name} is already within {within} {spent}, the budget{'s are' if len(goals) > 1 else ' is'} {asked}; "
            "give a smaller --budget"
        )
    _check_limits(graph, goals, limits, settings)
    return limits


def _check_limits(graph: Graph, goals: Sequence[Goal], limits: Mapping[str, float], settings: AdaptSettings) -> None:
    """`BudgetError` for the first budget that cannot be reached with these settings. `limits` are in predicted prices."""
    least = narrowest(graph, settings.width_step, settings.min_width)
    for goal in goals:
        initial, limit, lowest = goal.resource.price(graph), limits[goal.name], goal.resource.price(least)
        if limit < lowest:
            raise BudgetError(
                f"a budget of {goal.budget.amount_text(limit)}{_for_budget(goal, goals)} cannot be reached: with every block at "
                f"its narrowest {graph.name} still takes {goal.budget.amount_text(lowest)}, {100 * lowest / initial:.1f} % of "
                f"{goal.budget.amount_text(initial)}; give a larger --budget or a smaller --min-width"
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
    seed: int = 1,
    choices: Mapping[str, Sequence[int]] | None = None,
) -> Iterator[Step]:
    """Yield the steps after those in `history`, until one is within all budgets. The caller records each before the next.

    Each step meets its iteration's targets for all goals. `results` are the recorded ones of the unfinished iteration, whose
    candidates are not evaluated again. With `check`, each winner is measured before it is yielded, and the bias of its prediction
    corrects later targets. Samples are drawn with the seed, from the `choices` of widths by block, in ascending order; by default
    from all possible ones.

    `BudgetError` at the call if budgets or schedule are impossible; later only if pruning no longer reduces the prices, the
    iterations are used up, or a device is measured to be too slow for a budget. `NetAdaptError` if `evaluate` leaves out a result.
    """
    settings = settings or AdaptSettings()
    check_budgets(graph, goals, settings)
    choices = possible_choices(graph, settings.width_step, settings.min_width) if choices is None else choices
    return _Run(graph, goals, evaluate, settings, tuple(results), check, seed, choices).steps(tuple(history))


@dataclass(frozen=True, slots=True)
class _Run:
    """The arguments of `adapt`, and the loop over its iterations."""

    graph: Graph
    goals: Sequence[Goal]
    evaluate: Evaluate
    settings: AdaptSettings
    known: Sequence[Result]
    check: Check | None
    seed: int
    choices: Mapping[str, Sequence[int]]

    @property
    def resources(self) -> dict[str, Resource]:
        return _resources(self.goals)

    def steps(self, history: Sequence[Step]) -> Iterator[Step]:
        """Yield the original, unless it is in `history`, and then a winner for each iteration."""
        initial = prices_of(self.graph, self.resources)
        if history:
            first, step = history[0], history[-1]
        else:
            (result,) = self._results(None, (Candidate(0, self.graph.widths, initial),))
            first = step = self._checked(_step(result, (result,), {}, 0), {})
            yield first
        limits = self._limits(first, step, initial)
        if first.bias and step is first:  # measured, the original may be so slow that a budget is out of reach
            _check_limits(self.graph, self.goals, limits, self.settings)
        while any(step.prices[name] > limit for name, limit in limits.items()):
            if step.iteration >= self.settings.max_iterations:
                prices, budgets = ("price", "budget is") if len(self.goals) == 1 else ("prices", "budgets are")
                raise BudgetError(
                    f"{step.iteration} iterations brought the {prices} to {_amounts(step.prices, self.goals)}, the {budgets} "
                    f"{_amounts(limits, self.goals)}; continue with --resume and a higher --max-iterations"
                )
            step = self._iteration(step, limits, initial)
            yield step
            limits = self._limits(first, step, initial)

    def _limits(self, first: Step, step: Step, initial: Mapping[str, float]) -> dict[str, float]:
        """The budgets as amounts of predicted prices: the prediction for a network that is exactly within the budget when measured.

        A fraction is taken of the original's measured price or, if it was not measured, of its predicted price.
        """
        limits = {}
        for goal in self.goals:
            found, bias = first.checks.get(goal.name), step.bias.get(goal.name)
            amount = goal.budget.amount(found.measured.value if found else initial[goal.name])
            limits[goal.name] = amount if bias is None else amount / bias * (1 + ROUNDING)
        return limits

    def _iteration(self, step: Step, limits: Mapping[str, float], initial: Mapping[str, float]) -> Step:
        """The winner of the iteration after `step`; `limits` and `initial` are the budgets and the original's prices."""
        iteration, prices = step.iteration + 1, step.prices
        unmet = {name: price for name, price in prices.items() if price > limits[name]}
        targets = {
            name: max(limit, prices[name] - reduction(iteration, initial[name], self.settings.step, self.settings.decay))
            if name in unmet
            else limit  # a budget that is met only has to stay met
            for name, limit in limits.items()
        }
        candidates, targets, halvings = self._candidates(step, targets)
        ranking = Ranking(self.settings.select_by, step.accuracy, unmet, initial)
        results = self._in_rungs(step, candidates, ranking) if self.settings.successive_halving else self._results(step, candidates)
        winner = ranking.best([result for result in results if not result.dropped])
        return self._checked(_step(winner, results, targets, halvings), step.bias)

    def _candidates(self, step: Step, targets: dict[str, float]) -> tuple[tuple[Candidate, ...], dict[str, float], int]:
        """Candidates, the targets they meet, and how often the reductions had to be halved until there were any."""
        graph, resources, iteration = self.graph.at_widths(step.widths), self.resources, step.iteration + 1
        widths = self.settings.width_step, self.settings.min_width
        if self.settings.method == "descent":
            samples, blocks = self.settings.samples, self.settings.blocks
            drawn = sample_all(
                graph, resources, targets, self.choices, samples=samples, blocks=blocks, seed=self.seed, iteration=iteration
            )
            # towards the end a few random blocks may no longer bring the reduction
            drawn = drawn or join_all(graph, resources, targets, *widths, iteration=iteration)
            # or only without branches, which joining blocks does not remove
            drawn = drawn or shrink_all(graph, resources, targets, self.choices, iteration=iteration)
            if not drawn:
                raise BudgetError(self._no_gain(step, "all blocks together"))
            return drawn, targets, 0
        candidates = propose_all(graph, resources, targets, *widths, iteration=iteration)
        if not candidates and self.settings.if_no_candidate == "join":
            candidates = join_all(graph, resources, targets, *widths, iteration=iteration)
            if not candidates:
                raise BudgetError(self._no_gain(step, "all blocks together"))
        if not candidates and largest_share(graph, resources, targets, *widths) <= 0:
            raise BudgetError(self._no_gain(step, "a single block") + ", or --if-no-candidate join")
        # the loop ends: some block reduces all prices a little, and halving brings the reductions below that
        halvings, prices = 0, step.prices
        while not candidates:
            targets = {name: (target + prices[name]) / 2 if prices[name] > target else target for name, target in targets.items()}
            halvings += 1
            candidates = propose_all(graph, resources, targets, *widths, iteration=iteration)
        return candidates, targets, halvings

    def _no_gain(self, step: Step, blocks: str) -> str:
        return (
            f"after step {step.iteration} pruning {blocks} no longer reduces the price: the network takes "
            f"{_amounts(step.prices, self.goals)}; try a smaller --width-step or --min-width"
        )

    def _in_rungs(self, parent: Step, candidates: Sequence[Candidate], ranking: Ranking) -> list[Result]:
        """The last result of every candidate after successive halving, in their order; those of dropped ones are marked."""
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
        """A result for each candidate, in their order; candidates with a known result are not evaluated again."""
        found = {result.candidate.key: result for result in self.known if result.candidate in candidates}
        missing = [candidate for candidate in candidates if candidate.key not in found]
        if missing:
            found |= {result.candidate.key: result for result in self.evaluate(parent, missing)}
        lost = [candidate.block for candidate in candidates if candidate.key not in found]
        if lost:
            raise NetAdaptError(f"no result came back for {lost[0] or 'the original network'}; run again with --resume")
        return [found[candidate.key] for candidate in candidates]

    def _checked(self, step: Step, bias: Mapping[str, float]) -> Step:
        """The step with its measurements, if there are any, and the bias updated by them."""
        checks = {} if self.check is None else dict(self.check(step))
        return replace(step, checks=checks, bias=updated_bias(bias, checks))


def _resources(goals: Sequence[Goal]) -> dict[str, Resource]:
    return {goal.name: goal.resource for goal in goals}


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


def _for_budget(goal: Goal, goals: Sequence[Goal]) -> str:
    """The name of the budget for a sentence that mentions several."""
    return f" for {goal.name}" if len(goals) > 1 else ""


def _amounts(prices: Mapping[str, float], goals: Sequence[Goal]) -> str:
    return " and ".join(goal.budget.amount_text(prices[goal.name]) + _for_budget(goal, goals) for goal in goals)
