"""The NetAdapt loop, without torch or a device: a millisecond for each channel, and accuracies from a script."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netadapt.errors import BudgetError, NetAdaptError, SettingsError
from netadapt.resources import Budget, Goal
from netadapt.search.candidates import Candidate
from netadapt.search.loop import adapt, check_budgets
from netadapt.search.types import AdaptSettings, Result, Step
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import conv2d


@dataclass(frozen=True)
class OnePerChannel:
    """Charges a millisecond for each channel of a block."""

    name: str = "latency"
    unit: str = "ms"

    def price(self, graph: Graph) -> float:
        return float(sum(graph.widths.values()))


@dataclass
class Trainer:
    """Scores candidates by a function and remembers which it was asked for."""

    accuracy: Callable[[Candidate], float] = lambda candidate: 0.9
    asked: list[tuple[int, str | None]] = field(default_factory=list)
    parents: list[int | None] = field(default_factory=list)

    def __call__(self, parent: Step | None, candidates: Sequence[Candidate]) -> Iterator[Result]:
        self.parents.append(None if parent is None else parent.iteration)
        for candidate in candidates:
            self.asked.append((candidate.iteration, candidate.block))
            yield Result(candidate, self.accuracy(candidate), f"{candidate.iteration}-{candidate.block}.pt")


def chain(**widths: int) -> Graph:
    """Convolutions in a row, a block for each name, and a classifier nobody prunes."""
    nodes: list[Node] = []
    shape: tuple[int, ...] = (1, 4, 4, 3)
    for name, width in widths.items():
        layer = conv2d(shape, width, 1)
        nodes.append(Node(name, layer, (nodes[-1].name if nodes else "image",), name))
        shape = layer.output
    nodes.append(Node("classifier", conv2d(shape, 10, 1), (nodes[-1].name,)))
    return Graph("chain", (("image", (1, 4, 4, 3)),), tuple(nodes), ("classifier",))


GRAPH = chain(a=64, b=64, c=64)
HALF = Budget("latency", fraction=0.5)
SETTINGS = AdaptSettings(step=0.1, decay=0.96)


def steps_of(trainer: Trainer, budget: Budget = HALF, settings: AdaptSettings = SETTINGS, graph: Graph = GRAPH) -> list[Step]:
    return list(adapt(graph, [Goal(OnePerChannel(), budget)], trainer, settings))


def prefers(block: str) -> Trainer:
    return Trainer(lambda candidate: 0.9 if candidate.block == block else 0.5)


def test_step_0_is_the_original() -> None:
    first = steps_of(Trainer())[0]
    assert (first.iteration, first.block, first.widths, first.price, first.target) == (0, None, GRAPH.widths, 192.0, None)


def test_the_original_is_evaluated_without_a_parent() -> None:
    trainer = Trainer()
    next(adapt(GRAPH, [Goal(OnePerChannel(), HALF)], trainer, SETTINGS))
    assert (trainer.parents, trainer.asked) == ([None], [(0, None)])


def test_the_last_step_is_within_the_budget_and_none_before_is() -> None:
    prices = [step.price for step in steps_of(Trainer())]
    assert prices[-1] <= 96 < min(prices[:-1])


def test_every_step_meets_its_target() -> None:
    assert all(step.target is not None and step.price <= step.target for step in steps_of(Trainer())[1:])


def test_targets_follow_the_schedule_from_the_price_before() -> None:
    steps = steps_of(Trainer())
    for before, step in itertools.pairwise(steps[:-1]):
        assert step.target == pytest.approx(before.price - 19.2 * 0.96 ** (step.iteration - 1))


def test_no_target_is_below_the_budget() -> None:
    steps = steps_of(Trainer(), Budget("latency", absolute=170.0), replace(SETTINGS, step=0.5))
    assert [step.target for step in steps] == [None, 170.0]


def test_every_step_narrows_one_block_only() -> None:
    for before, step in itertools.pairwise(steps_of(Trainer())):
        assert [name for name in step.widths if step.widths[name] != before.widths[name]] == [step.block]


def test_the_most_accurate_candidate_wins() -> None:
    assert steps_of(prefers("b"))[1].block == "b"


def test_of_equally_accurate_candidates_the_cheapest_wins() -> None:
    step = steps_of(Trainer(), graph=chain(a=60, b=64, c=64))[1]
    assert {result.candidate.block: result.candidate.price for result in step.results} == {"a": 168.0, "b": 164.0, "c": 164.0}
    assert step.block == "b"


def test_of_equal_candidates_the_first_in_the_network_wins() -> None:
    assert steps_of(Trainer())[1].block == "a"


def test_the_results_of_every_candidate_are_kept_with_the_step() -> None:
    step = steps_of(prefers("b"))[1]
    assert [(result.candidate.block, result.accuracy) for result in step.results] == [("a", 0.5), ("b", 0.9), ("c", 0.5)]


def test_results_may_come_in_any_order() -> None:
    def backwards(parent: Step | None, candidates: Sequence[Candidate]) -> list[Result]:
        return list(Trainer()(parent, candidates))[::-1]

    step = list(adapt(GRAPH, [Goal(OnePerChannel(), HALF)], backwards, SETTINGS))[1]
    assert [result.candidate.block for result in step.results] == ["a", "b", "c"]


def test_nothing_is_evaluated_before_a_step_is_asked_for() -> None:
    trainer = Trainer()
    adapt(GRAPH, [Goal(OnePerChannel(), HALF)], trainer, SETTINGS)
    assert trainer.asked == []


@given(st.integers(0, 6), st.integers(0, 3))
def test_a_run_stopped_anywhere_goes_on_to_the_same_steps(stop: int, recorded: int) -> None:
    whole = steps_of(prefers("b"))
    stop = min(stop, len(whole) - 1)
    history, known = whole[:stop], whole[stop].results[:recorded]
    trainer = prefers("b")
    rest = list(adapt(GRAPH, [Goal(OnePerChannel(), HALF)], trainer, SETTINGS, history, known))
    assert [*history, *rest] == whole
    assert not {(result.candidate.iteration, result.candidate.block) for result in known} & set(trainer.asked)


def test_a_finished_run_has_no_further_steps() -> None:
    assert list(adapt(GRAPH, [Goal(OnePerChannel(), HALF)], Trainer(), SETTINGS, steps_of(Trainer()))) == []


def test_a_recorded_result_of_other_widths_is_not_used() -> None:
    whole = steps_of(Trainer())
    result = whole[1].results[0]
    stale = replace(result, candidate=replace(result.candidate, widths={"a": 8, "b": 64, "c": 64}))
    trainer = Trainer()
    next(adapt(GRAPH, [Goal(OnePerChannel(), HALF)], trainer, SETTINGS, whole[:1], [stale]))
    assert (1, "a") in trainer.asked


def test_the_reduction_is_halved_until_a_block_can_bring_it() -> None:
    graph = chain(a=16, b=16, c=16, d=16)  # one block alone can take away 8 of 64, the first step asks for 32
    steps = steps_of(Trainer(), Budget("latency", fraction=0.75), replace(SETTINGS, step=0.5), graph)
    assert [(step.halvings, step.target, step.price) for step in steps[1:]] == [(1, 56.0, 56.0), (0, 48.0, 48.0)]


def test_a_network_that_cannot_be_pruned_to_any_gain_ends_the_run_in_one_sentence() -> None:
    class Bumpy(OnePerChannel):
        """Cheap at the floor all together, dearer with any single block pruned."""

        def price(self, graph: Graph) -> float:
            prune = sum(width < 16 for width in graph.widths.values())
            return {0: 10.0, 1: 11.0, 2: 11.0, 3: 1.0}[prune]

    with pytest.raises(BudgetError, match="after step 0 pruning a single block no longer reduces the price"):
        list(adapt(chain(a=16, b=16, c=16), [Goal(Bumpy(), HALF)], Trainer(), SETTINGS))


def test_running_out_of_iterations_says_how_to_go_on() -> None:
    graph = chain(a=16, b=16, c=16, d=16)  # needs more steps than planned, as each had to be halved
    with pytest.raises(
        BudgetError, match=r"2 iterations brought the price to 48 ms, the budget is 38\.4 ms; continue with --resume"
    ):
        steps_of(Trainer(), Budget("latency", fraction=0.6), AdaptSettings(step=0.5, max_iterations=2), graph)


def test_an_evaluation_that_loses_a_candidate_is_told() -> None:
    def forgetful(parent: Step | None, candidates: Sequence[Candidate]) -> list[Result]:
        return list(Trainer()(parent, candidates))[: 1 if parent is None else 2]

    with pytest.raises(NetAdaptError, match="no result came back for c"):
        list(adapt(GRAPH, [Goal(OnePerChannel(), HALF)], forgetful, SETTINGS))


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget("latency", absolute=200.0), "already within the budget: it takes 192 ms, the budget is 200 ms"),
        (Budget("latency", fraction=1.0), "already within the budget"),
        (Budget("latency", absolute=20.0), "with every block at its narrowest chain still takes 24 ms, 12.5 % of 192 ms"),
        (Budget("latency", fraction=0.2), "these settings reduce the price by 70.6 % in 30 iterations, the budget asks for 80.0 %"),
    ],
)
def test_a_budget_that_cannot_be_met_is_told_before_anything_is_trained(budget: Budget, said: str) -> None:
    trainer = Trainer()
    with pytest.raises(BudgetError) as error:
        adapt(GRAPH, [Goal(OnePerChannel(), budget)], trainer, AdaptSettings())
    assert said in str(error.value)
    assert trainer.asked == []


def test_the_budget_is_returned_as_an_amount() -> None:
    assert check_budgets(GRAPH, [Goal(OnePerChannel(), HALF)], SETTINGS) == {"latency": 96.0}


@pytest.mark.parametrize(
    ("name", "value"),
    [("step", 0.0), ("step", 1.0), ("decay", 0.0), ("decay", 1.1), ("max_iterations", 0), ("width_step", 0), ("min_width", 0)],
)
def test_a_setting_outside_its_range_is_named(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')}"):
        AdaptSettings(**{name: value})  # type: ignore[arg-type]


def test_an_accuracy_that_is_no_number_cannot_be_recorded() -> None:
    with pytest.raises(ValueError, match="must be a number"):
        Result(Candidate(1, {}, {"latency": 1.0}, ("a",)), float("nan"), "a.pt")
