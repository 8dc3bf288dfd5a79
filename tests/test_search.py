"""The search beyond the paper: winners by ratio, candidates dropped early, predictions corrected by what is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_loop import GRAPH, HALF, OnePerChannel, Trainer, chain, steps_of

from netadapt.errors import BudgetError, NetAdaptError, SettingsError
from netadapt.resources import Budget, Goal
from netadapt.search.bias import Checked, updated_bias
from netadapt.search.candidates import Candidate, Rung
from netadapt.search.choosing import RUNGS, Ranking
from netadapt.search.loop import adapt
from netadapt.search.types import AdaptSettings, Result, Step
from profiler.interval import Interval

SETTINGS = AdaptSettings(step=0.1)
RATIO = replace(SETTINGS, select_by="ratio")
HALVING = replace(SETTINGS, successive_halving=True)
SIX = chain(**dict.fromkeys("abcdef", 64))


# ------------------------------------------------------------------------------------------------------------------ winners


def result(block: str, accuracy: float, price: float) -> Result:
    return Result(Candidate(1, {}, {"latency": price}, (block,)), accuracy, f"{block}.pt")


def test_by_ratio_the_least_accuracy_lost_for_what_is_saved_wins() -> None:
    ranking = Ranking("ratio", 0.9, {"latency": 100.0}, {"latency": 100.0})
    little, much = result("little", 0.89, 96.0), result("much", 0.88, 90.0)  # 0.25 and 0.2 of accuracy for all of the latency
    assert ranking.best([little, much]) is much
    assert Ranking("accuracy").best([little, much]) is little


def test_the_ratio_is_the_reference_codes() -> None:
    ranking = Ranking("ratio", 0.9, {"latency": 50.0}, {"latency": 100.0})
    assert ranking.key(result("a", 0.88, 40.0))[0] == pytest.approx((0.02 + 1e-6) / (0.1 + 1e-5))


def test_the_ratio_does_not_depend_on_the_unit_of_the_price() -> None:
    def ratio(unit: float) -> float:
        ranking = Ranking("ratio", 0.9, {"latency": 50.0 * unit}, {"latency": 100.0 * unit})
        return ranking.key(result("a", 0.88, 40.0 * unit))[0]

    assert ratio(1e6) == pytest.approx(ratio(1e-3))


def test_a_run_can_be_led_by_the_ratio() -> None:
    graph = chain(a=60, b=64, c=64)  # a saves 20, the others 24
    accuracies = {None: 0.9, "a": 0.885, "b": 0.883, "c": 0.5}
    trainer = Trainer(lambda candidate: accuracies[candidate.block])
    assert steps_of(trainer, graph=graph)[1].block == "a"
    assert steps_of(trainer, graph=graph, settings=RATIO)[1].block == "b"


@pytest.mark.parametrize("name", ["select_by", "if_no_candidate"])
def test_an_unknown_rule_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')} must be .* or .*, got 'coin'"):
        AdaptSettings(**{name: "coin"})  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------------ halving


@dataclass
class InRungs:
    """Remembers which stretches each candidate was trained for; d is best, then e, f, a, b, c."""

    asked: list[Candidate] = field(default_factory=list)

    def __call__(self, parent: Step | None, candidates: Sequence[Candidate]) -> Iterator[Result]:
        for candidate in candidates:
            self.asked.append(candidate)
            yield self.result(candidate)

    def result(self, candidate: Candidate) -> Result:
        rung = candidate.rung.name if candidate.rung else "whole"
        return Result(candidate, 0.9 - 0.01 * "defabc".index(candidate.block or "d"), f"{candidate.block}-{rung}.pt")


def first_step(evaluate: InRungs) -> Step:
    return list(adapt(SIX, [Goal(OnePerChannel(), Budget("latency", fraction=0.95))], evaluate, HALVING))[1]


def test_half_of_the_candidates_go_on_after_each_rung() -> None:
    evaluate = InRungs()
    first_step(evaluate)
    rungs = [
        "".join(item.block or "" for item in evaluate.asked if item.rung and item.rung.number == number) for number in range(3)
    ]
    assert rungs == ["abcdef", "def", "de"]


def test_a_candidate_goes_on_from_its_own_weights() -> None:
    evaluate = InRungs()
    first_step(evaluate)
    assert [item.rung for item in evaluate.asked if item.block == "d"][1:] == [
        Rung(1, 0.25, 0.5, "d-rung0.pt"), Rung(2, 0.5, 1.0, "d-rung1.pt"),
    ]  # fmt: skip


def test_the_original_is_not_dropped() -> None:
    evaluate = InRungs()
    first_step(evaluate)
    assert evaluate.asked[0].rung is None


def test_dropped_candidates_are_recorded_as_dropped() -> None:
    step = first_step(InRungs())
    assert [(found.candidate.block, found.dropped) for found in step.results] == [
        ("a", True), ("b", True), ("c", True), ("d", False), ("e", False), ("f", True),
    ]  # fmt: skip
    assert (step.block, step.weights) == ("d", "d-rung2.pt")


def test_a_lone_candidate_is_trained_in_one_go() -> None:
    graph = chain(a=64)
    evaluate = InRungs()
    steps = list(adapt(graph, [Goal(OnePerChannel(), HALF)], evaluate, replace(HALVING, step=0.3)))
    assert len(steps) > 1
    assert all(item.rung is None for item in evaluate.asked)


def test_a_run_stopped_between_rungs_repeats_none_of_them() -> None:
    whole = InRungs()
    step = first_step(whole)
    original, *asked = whole.asked
    start = next(adapt(SIX, [Goal(OnePerChannel(), Budget("latency", fraction=0.95))], InRungs(), HALVING))
    for done in range(len(asked) + 1):
        again = InRungs()
        known = [again.result(candidate) for candidate in asked[:done]]
        budget = Budget("latency", fraction=0.95)
        assert next(adapt(SIX, [Goal(OnePerChannel(), budget)], again, HALVING, [start], known)) == step
        assert again.asked == asked[done:]
    assert original.block is None


@given(st.integers(0, 500))
def test_the_stretches_add_up_to_all_steps(steps: int) -> None:
    rungs = [Rung(number, start, end) for number, (start, end) in enumerate(zip((0.0, *RUNGS), RUNGS, strict=False))]
    assert sum(rung.steps(steps) for rung in rungs) == steps
    assert all(rung.steps(steps) >= 0 for rung in rungs)


# ------------------------------------------------------------------------------------------------------------ measured winners


def measured(ratio: float, price: float = 100.0, interval: float = 0.05) -> Checked:
    found = ratio * price
    return Checked(Interval(found, found * 0.99, found * 1.01), Interval(price, price * (1 - interval), price * (1 + interval)))


@dataclass
class Device:
    """Takes this many times as long as predicted."""

    ratio: float = 1.0
    seen: list[int] = field(default_factory=list)

    def __call__(self, step: Step) -> dict[str, Checked]:
        self.seen.append(step.iteration)
        return {"latency": measured(self.ratio, step.price)}


def checked_steps(device: object, budget: Budget = HALF, history: Sequence[Step] = ()) -> list[Step]:
    return list(adapt(GRAPH, [Goal(OnePerChannel(), budget)], Trainer(), SETTINGS, history, check=device))  # type: ignore[arg-type]


def test_every_winner_is_measured_and_the_original_too() -> None:
    device = Device()
    steps = checked_steps(device)
    assert device.seen == [step.iteration for step in steps]


def test_an_exact_prediction_changes_nothing() -> None:
    assert [step.widths for step in checked_steps(Device())] == [step.widths for step in steps_of(Trainer())]


def test_a_fraction_is_one_of_what_the_original_takes_when_measured() -> None:
    assert [step.widths for step in checked_steps(Device(1.3))] == [step.widths for step in steps_of(Trainer())]


def test_an_amount_is_met_as_it_is_measured() -> None:
    last = checked_steps(Device(1.25), Budget("latency", absolute=120.0))[-1]
    assert last.price * 1.25 <= 120


def test_networks_that_gain_less_than_predicted_are_pruned_further() -> None:
    def lazy(step: Step) -> dict[str, Checked]:
        return {"latency": measured(1.0 if step.iteration == 0 else 1.2, step.price)}

    last = checked_steps(lazy)[-1]
    assert last.price < 96
    assert last.price * last.bias["latency"] <= 96


def test_the_first_ratio_counts_whole_and_later_ones_are_smoothed() -> None:
    first = updated_bias({}, {"latency": measured(1.21)})
    assert first == pytest.approx({"latency": 1.21})
    assert updated_bias(first, {"latency": measured(1.0)}) == pytest.approx({"latency": 1.1})


def test_what_was_not_measured_keeps_its_bias() -> None:
    assert updated_bias({"pixel": 1.1, "jetson": 0.9}, {"jetson": measured(0.9)}) == pytest.approx({"pixel": 1.1, "jetson": 0.9})


def test_a_miss_by_more_than_the_interval_is_an_entry_on_the_step() -> None:
    steps = checked_steps(Device(1.3))
    assert all(list(step.misses) == ["latency"] for step in steps)
    assert not any(step.misses for step in checked_steps(Device(1.03)))


def test_a_miss_is_told_in_one_sentence() -> None:
    assert (
        measured(1.3).sentence(Budget("latency", fraction=0.5, table="pixel"))
        == "pixel: measured 130 ms, predicted 100 ms (95 ms to 105 ms), +30.0 %"
    )


def test_a_run_goes_on_with_the_bias_it_had() -> None:
    def lazy(step: Step) -> dict[str, Checked]:
        return {"latency": measured(1.0 + 0.02 * step.iteration, step.price)}

    whole = checked_steps(lazy)
    for stop in range(1, len(whole)):
        assert whole[:stop] + checked_steps(lazy, history=whole[:stop]) == whole


def test_a_device_too_slow_for_the_budget_ends_the_run_before_a_candidate_is_trained() -> None:
    steps = adapt(
        GRAPH, [Goal(OnePerChannel(), Budget("latency", absolute=30.0))], Trainer(), AdaptSettings(step=0.2), check=Device(2.0)
    )
    next(steps)
    with pytest.raises(BudgetError, match="a budget of 15 ms cannot be reached"):
        next(steps)


@pytest.mark.parametrize("found", [0.0, -1.0])
def test_a_measurement_that_is_no_amount_is_refused(found: float) -> None:
    with pytest.raises(NetAdaptError):
        Checked(Interval.unknown(found), Interval.unknown(1.0))


@given(st.floats(0.5, 2.0), st.floats(0.4, 0.9))
def test_a_constant_factor_never_keeps_a_run_from_its_budget(ratio: float, fraction: float) -> None:
    last = checked_steps(Device(ratio), Budget("latency", fraction=fraction))[-1]
    assert last.price * ratio <= fraction * 192 * ratio * (1 + 1e-9)
