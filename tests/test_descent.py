"""Samples that narrow several blocks: each meets every target by the tables, and a search made of them ends within its budgets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from graphs import mobilenet_v1

from netadapt.errors import SettingsError
from netadapt.resources import Goal, open_resource, parse_budget
from netadapt.search.candidates import Candidate, prices_of
from netadapt.search.descent import possible_choices, sample_all
from netadapt.search.loop import adapt
from netadapt.search.types import AdaptSettings, Result, Step

GRAPH = mobilenet_v1(0.5, 32, classes=10)
RESOURCES = {name: open_resource(name, None) for name in ("macs", "memory", "parameters")}
CHOICES = possible_choices(GRAPH, 8, 8)
NOW = prices_of(GRAPH, RESOURCES)
TARGETS = {"macs": 0.9 * NOW["macs"], "memory": NOW["memory"], "parameters": 0.95 * NOW["parameters"]}
SETTINGS = AdaptSettings(step=0.1, method="descent", samples=8, blocks=4, candidates="supernet")


def drawn(blocks: int = 4, iteration: int = 1, seed: int = 1, samples: int = 30) -> tuple[Candidate, ...]:
    return sample_all(GRAPH, RESOURCES, TARGETS, CHOICES, samples=samples, blocks=blocks, seed=seed, iteration=iteration)


def test_every_sample_meets_every_target() -> None:
    found = drawn()
    assert len(found) == 30
    for sample in found:
        assert sample.prices == prices_of(GRAPH.at_widths(sample.widths), RESOURCES)
        assert all(sample.prices[name] <= target for name, target in TARGETS.items())


def test_a_sample_narrows_several_blocks_and_no_more_than_it_may() -> None:
    counts = [len(sample.blocks) for sample in drawn(blocks=4)]
    assert max(counts) == 4
    for sample in drawn():
        assert set(sample.blocks) == {block for block, width in sample.widths.items() if width != GRAPH.widths[block]}


def test_samples_have_widths_that_are_possible_and_no_two_the_same() -> None:
    found = drawn()
    assert all(width in CHOICES[block] for sample in found for block, width in sample.widths.items())
    assert len({tuple(sample.widths.items()) for sample in found}) == len(found)
    assert len({sample.key for sample in found}) == len(found)


def test_a_seed_and_an_iteration_decide_all() -> None:
    assert drawn() == drawn()
    assert drawn() != drawn(seed=2)
    assert [sample.widths for sample in drawn()] != [sample.widths for sample in drawn(iteration=2)]


def test_a_sample_shrinks_hardly_more_than_it_has_to() -> None:
    of_macs = [sample.prices["macs"] / NOW["macs"] for sample in drawn()]
    assert sum(share > 0.8 for share in of_macs) > 20


def test_blocks_without_choices_keep_their_width() -> None:
    fixed = next(iter(GRAPH.widths))
    choices = {block: widths for block, widths in CHOICES.items() if block != fixed}
    found = sample_all(GRAPH, RESOURCES, TARGETS, choices, samples=10, blocks=20, seed=1, iteration=1)
    assert {sample.widths[fixed] for sample in found} == {GRAPH.widths[fixed]}


def test_a_target_that_no_blocks_reach_has_no_samples() -> None:
    assert sample_all(GRAPH, RESOURCES, {"macs": 1.0}, CHOICES, samples=3, blocks=2, seed=1, iteration=1) == ()


class Judge:
    """Scores a network by how even its widths are, and counts."""

    def __init__(self) -> None:
        self.asked: list[Candidate] = []

    def __call__(self, parent: Step | None, candidates: Sequence[Candidate]) -> Iterator[Result]:
        for candidate in candidates:
            self.asked.append(candidate)
            shares = [candidate.widths[block] / full for block, full in GRAPH.widths.items()]
            yield Result(candidate, min(shares), f"{candidate.iteration}-{candidate.part or candidate.block}.pt")


GOALS = [Goal(RESOURCES["macs"], parse_budget("macs=50%")), Goal(RESOURCES["parameters"], parse_budget("parameters=60%"))]


def test_a_search_by_samples_ends_within_all_budgets_and_keeps_the_best_of_each_iteration() -> None:
    steps = list(adapt(GRAPH, GOALS, Judge(), SETTINGS))
    assert steps[-1].prices["macs"] <= 0.5 * NOW["macs"]
    assert steps[-1].prices["parameters"] <= 0.6 * NOW["parameters"]
    for step in steps[1:]:
        assert step.accuracy == max(result.accuracy for result in step.results)
        assert all(step.prices[name] <= target for name, target in step.targets.items())


def test_samples_that_were_judged_before_an_interruption_are_not_judged_again() -> None:
    first, second, *_ = list(adapt(GRAPH, GOALS, Judge(), SETTINGS))
    judge = Judge()
    again = next(iter(adapt(GRAPH, GOALS, judge, SETTINGS, [first], second.results[:-1])))
    assert again == second
    assert [candidate.sample for candidate in judge.asked] == [second.results[-1].candidate.sample]


@pytest.mark.slow
def test_where_no_sample_reaches_a_target_all_blocks_are_tried() -> None:
    one_block = replace(SETTINGS, blocks=1, samples=2, step=0.45)
    steps = list(adapt(GRAPH, GOALS, Judge(), one_block))
    assert steps[-1].prices["macs"] <= 0.5 * NOW["macs"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "luck"}, "--search must be single or descent"),
        ({"candidates": "fine-tune"}, "--search descent judges its samples in a super-network; name one with --supernet"),
        ({"successive_halving": True}, "--successive-halving shortens fine-tunes"),
        ({"samples": 0}, "--samples must be at least 1, got 0"),
    ],
)
def test_settings_that_do_not_fit_get_one_sentence(changes: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        replace(SETTINGS, **changes)
