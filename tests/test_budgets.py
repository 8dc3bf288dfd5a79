"""Several budgets at once, on made-up devices: each step meets the targets of all, the hardest to please decides."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_loop import OnePerChannel, Trainer, chain

from netadapt.errors import BudgetError
from netadapt.resources import Budget, Goal, Macs, Parameters
from netadapt.search.loop import adapt, check_budgets
from netadapt.search.schedule import reduction
from netadapt.search.types import AdaptSettings, Step
from profiler.layers.graph import Graph

GRAPH = chain(a=64, b=64, c=64)
SETTINGS = AdaptSettings(step=0.1)


@dataclass(frozen=True)
class Tiled:
    """A device that computes whole tiles of channels, a millisecond for each channel of a tile."""

    tile: int
    name: str = "latency"
    unit: str = "ms"

    def price(self, graph: Graph) -> float:
        return float(sum(-(-width // self.tile) * self.tile for width in graph.widths.values()))


def goal(name: str, tile: int, fraction: float) -> Goal:
    return Goal(Tiled(tile), Budget("latency", fraction=fraction, table=name))


def steps_of(first: Goal, *more: Goal, settings: AdaptSettings = SETTINGS, graph: Graph = GRAPH) -> list[Step]:
    return list(adapt(graph, [first, *more], Trainer(), settings))


def test_the_second_devices_staircase_decides_the_widths() -> None:
    alone = steps_of(goal("pixel", 8, 0.75))
    both = steps_of(goal("pixel", 8, 0.75), goal("jetson", 32, 0.75))
    assert alone[1].widths == {"a": 40, "b": 64, "c": 64}
    assert both[1].widths == {"a": 32, "b": 64, "c": 64}  # with 40 channels the other device computes 64


def test_a_step_tells_the_prices_and_targets_of_all_budgets() -> None:
    step = steps_of(goal("pixel", 8, 0.75), goal("jetson", 32, 0.75))[1]
    assert step.prices == {"pixel": 160.0, "jetson": 160.0}
    assert step.targets == pytest.approx({"pixel": 172.8, "jetson": 172.8})
    assert (step.price, step.target) == (step.prices["pixel"], step.targets["pixel"])


def test_a_run_ends_when_the_last_budget_is_met() -> None:
    last = steps_of(goal("pixel", 8, 0.9), goal("jetson", 32, 0.5))[-1]
    assert last.prices["jetson"] <= 96


def test_a_budget_that_is_met_has_itself_as_its_target() -> None:
    steps = steps_of(goal("pixel", 8, 0.9), goal("jetson", 32, 0.5))
    assert [step.targets["pixel"] for step in steps[2:]] == pytest.approx([0.9 * 192] * len(steps[2:]))


def test_a_budget_may_be_met_from_the_start_if_another_is_not() -> None:
    steps = steps_of(goal("pixel", 8, 1.0), goal("jetson", 32, 0.75))
    assert steps[-1].prices["jetson"] <= 144


def test_each_resource_has_a_schedule_of_its_own() -> None:
    macs = Goal(Macs(), Budget("macs", fraction=0.5))
    steps = steps_of(Goal(OnePerChannel(), Budget("latency", fraction=0.5)), macs)
    for before, step in itertools.pairwise(steps):
        for name, initial in steps[0].prices.items():
            scheduled = before.prices[name] - reduction(step.iteration, initial, 0.1, 0.96)
            limit = 0.5 * initial
            assert step.targets[name] == pytest.approx(limit if before.prices[name] <= limit else max(limit, scheduled))


def test_all_budgets_already_met_is_told() -> None:
    with pytest.raises(BudgetError, match="already within all budgets"):
        steps_of(goal("pixel", 8, 1.0), goal("jetson", 32, 1.0))


def test_the_budget_that_cannot_be_reached_is_named_before_anything_is_trained() -> None:
    with pytest.raises(
        BudgetError, match="for jetson cannot be reached: with every block at its narrowest chain still takes 96 ms"
    ):
        check_budgets(GRAPH, (goal("pixel", 8, 0.9), goal("jetson", 32, 0.4)), SETTINGS)


def test_the_budget_that_the_schedule_does_not_reach_is_named_before_anything_is_trained() -> None:
    with pytest.raises(BudgetError, match=r"the budget for macs asks for 80\.0 %"):
        check_budgets(GRAPH, (goal("pixel", 8, 0.9), Goal(Macs(), Budget("macs", fraction=0.2))), AdaptSettings())


def test_steps_are_halved_for_all_resources_alike() -> None:
    steps = steps_of(goal("pixel", 8, 0.6), goal("jetson", 16, 0.6), settings=AdaptSettings(step=0.4))
    assert steps[1].halvings == 1
    assert steps[1].targets == pytest.approx({"pixel": 192 * 0.8, "jetson": 192 * 0.8})


def test_joining_meets_the_step_that_no_block_can_bring_alone() -> None:
    settings = AdaptSettings(step=0.4, if_no_candidate="join")
    (_, step) = steps_of(goal("pixel", 8, 0.6), goal("jetson", 16, 0.6), settings=settings)
    assert step.halvings == 0
    assert len(step.blocks) > 1
    assert step.block == step.blocks[0]


def monotone(goals: Mapping[str, float]) -> list[Goal]:
    kinds = {"pixel": Tiled(16), "jetson": Tiled(24), "macs": Macs(), "parameters": Parameters()}
    budgets = {
        name: Budget(
            "latency" if name in ("pixel", "jetson") else name, fraction=fraction, table=name if name in ("pixel", "jetson") else ""
        )
        for name, fraction in goals.items()
    }
    return [Goal(kinds[name], budget) for name, budget in budgets.items()]


@given(
    st.dictionaries(st.sampled_from(["pixel", "jetson", "macs", "parameters"]), st.floats(0.3, 1.0), min_size=1),
    st.lists(st.sampled_from([16, 24, 40, 64]), min_size=2, max_size=4),
    st.floats(0.02, 0.5),
    st.sampled_from(["halve", "join"]),
    st.sampled_from(["accuracy", "ratio"]),
    st.booleans(),
)
def test_every_step_meets_every_target_and_a_run_ends_within_all_budgets_or_says_why(
    fractions: Mapping[str, float], widths: list[int], step: float, if_no_candidate: str, winner: str, halving: bool
) -> None:
    graph = chain(**{f"b{place}": width for place, width in enumerate(widths)})
    goals = monotone(fractions)
    settings = AdaptSettings(step=step, select_by=winner, if_no_candidate=if_no_candidate, successive_halving=halving)
    trainer = Trainer(lambda candidate: 0.5 + 0.001 * (hash(candidate.block) % 100))
    done: list[Step] = []
    try:
        limits = check_budgets(graph, goals, settings)
        done.extend(adapt(graph, goals, trainer, settings))
        assert all(done[-1].prices[name] <= limit for name, limit in limits.items())
    except BudgetError as error:
        assert "\n" not in str(error)
    for before, after in itertools.pairwise(done):
        assert all(after.prices[name] <= target for name, target in after.targets.items())
        assert all(after.prices[name] <= price for name, price in before.prices.items())
        assert after.prices == {goal.name: goal.resource.price(graph.at_widths(after.widths)) for goal in goals}
