"""Candidates: the widest a block can stay, priced on the whole network."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from graphs import mobilenet_v1
from hypothesis import given
from hypothesis import strategies as st
from test_channels import grouped

from netadapt.baselines.uniform_family import multipliers
from netadapt.resources import open_resource
from netadapt.search.candidates import largest_share, narrower_widths, narrowest, prices_of, propose, propose_all
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import conv2d


@dataclass(frozen=True)
class OnePerChannel:
    """Charges a millisecond for each output channel of every layer."""

    name: str = "latency"
    unit: str = "ms"

    def price(self, graph: Graph) -> float:
        return float(sum(layer.out_channels for layer in graph.layers))


@dataclass(frozen=True)
class Bumpy:
    """A staircase that rises again on its way down: 40 channels cost more than 48."""

    name: str = "latency"
    unit: str = "ms"

    def price(self, graph: Graph) -> float:
        return {64: 10.0, 56: 9.0, 48: 5.0, 40: 8.0, 32: 4.0}.get(graph.widths["first"], 1.0)


ONE = {"latency": OnePerChannel()}


def to(target: float) -> dict[str, float]:
    return {"latency": target}


def two_convolutions(groups: int = 1) -> Graph:
    """Blocks first (64 channels) and second (32); the last layer is nobody's to prune."""
    first = conv2d((1, 8, 8, 3), 64, 3)
    second = conv2d(first.output, 32, 3, groups=groups)
    last = conv2d(second.output, 10, 1)
    nodes = (
        Node("a", first, ("image",), "first"),
        Node("b", second, ("a",), "second"),
        Node("c", last, ("b",)),
    )
    return Graph("two", (("image", (1, 8, 8, 3)),), nodes, ("c",))


def test_the_widest_choice_that_meets_the_target_is_proposed() -> None:
    candidate = propose(two_convolutions(), "first", ONE, to(106 - 9))
    assert candidate is not None
    assert (candidate.widths, candidate.price) == ({"first": 48, "second": 32}, 90.0)


def test_a_target_met_exactly_is_met() -> None:
    candidate = propose(two_convolutions(), "first", ONE, to(98.0))
    assert candidate is not None
    assert candidate.widths["first"] == 56


def test_what_the_following_layers_save_is_counted() -> None:
    graph = mobilenet_v1(0.25, 64, pairs=2)
    candidate = propose(graph, "pw1", ONE, to(OnePerChannel().price(graph) - 16))
    assert candidate is not None
    assert graph.widths["pw1"] - candidate.widths["pw1"] == 8  # eight of its own and eight of the depthwise that follows


def test_a_block_that_cannot_meet_the_target_has_no_candidate() -> None:
    assert propose(two_convolutions(), "second", ONE, to(106 - 30)) is None


def test_a_staircase_that_rises_again_is_searched_to_its_end() -> None:
    candidate = propose(two_convolutions(), "first", {"latency": Bumpy()}, to(4.5))
    assert candidate is not None
    assert candidate.widths["first"] == 32


def test_all_blocks_that_can_are_proposed_in_the_order_of_the_network() -> None:
    assert [c.block for c in propose_all(two_convolutions(), ONE, to(100.0))] == ["first", "second"]
    assert [c.block for c in propose_all(two_convolutions(), ONE, to(70.0))] == ["first"]


def test_a_width_that_a_grouped_convolution_cannot_take_is_passed_over() -> None:
    candidate = propose(two_convolutions(groups=16), "first", ONE, to(98.0))
    assert candidate is not None
    assert candidate.widths["first"] == 48  # 56 channels do not divide into 16 groups


def test_a_block_at_the_floor_cannot_be_pruned() -> None:
    graph = two_convolutions().at_widths({"first": 8})
    assert propose(graph, "first", ONE, to(1000.0)) is None


def test_the_narrowest_network_has_every_block_at_the_floor() -> None:
    assert prices_of(narrowest(two_convolutions()), ONE) == {"latency": 8 + 8 + 10}


def test_the_narrowest_network_respects_groups() -> None:
    assert prices_of(narrowest(two_convolutions(groups=4)), ONE) == {"latency": 8 + 8 + 10}
    assert prices_of(narrowest(two_convolutions(groups=16)), ONE) == {"latency": 32 + 32 + 10}  # two channels in each


@pytest.mark.parametrize("groups", [1, 3, 4, 16])
def test_a_thinner_network_has_widths_that_its_groups_divide(groups: int) -> None:
    graph = two_convolutions().at_widths({"first": 48}) if groups == 1 else grouped(groups)
    thinner = multipliers(graph)
    assert thinner
    for _, widths in thinner:
        assert graph.at_widths(widths).macs < graph.macs


def test_a_single_block_can_bring_part_of_a_way_that_is_too_long_for_it() -> None:
    assert largest_share(two_convolutions(), ONE, to(106 - 112)) == 56 / 112


def test_a_single_block_that_can_bring_more_than_the_way_says_so() -> None:
    assert largest_share(two_convolutions(), ONE, to(106 - 28)) == 2


def test_there_is_no_share_where_nothing_can_be_pruned() -> None:
    assert largest_share(two_convolutions().at_widths({"first": 8, "second": 8}), ONE, to(0)) == 0


TWO = {"latency": OnePerChannel(), "macs": open_resource("macs")}


def test_a_candidate_meets_the_targets_of_all_resources() -> None:
    graph = two_convolutions()
    candidate = propose(graph, "first", TWO, {"latency": 98.0, "macs": 0.6 * graph.macs})
    assert candidate is not None
    assert candidate.widths["first"] == 32  # 56 would do for the latency
    assert candidate.prices == {"latency": 74.0, "macs": graph.at_widths({"first": 32}).macs}
    assert candidate.price == 74.0


def test_the_share_is_that_of_the_resource_that_gets_least_far() -> None:
    graph = two_convolutions()
    alone = largest_share(graph, ONE, to(100.0))
    both = largest_share(graph, TWO, {"latency": 100.0, "macs": 0.01 * graph.macs})
    assert both < 1 < alone


def test_a_resource_that_is_within_its_target_must_stay_so() -> None:
    class Rising(OnePerChannel):
        def price(self, graph: Graph) -> float:
            return 200.0 - super().price(graph)

    two = {"latency": OnePerChannel(), "rising": Rising()}
    assert propose(two_convolutions(), "first", two, {"latency": 98.0, "rising": 110.0}) is not None
    assert propose(two_convolutions(), "first", two, {"latency": 98.0, "rising": 100.0}) is None
    assert largest_share(two_convolutions(), two, {"latency": 98.0, "rising": 95.0}) == 0


@given(st.integers(1, 600), st.integers(1, 32), st.integers(1, 64))
def test_narrower_widths_are_multiples_below_and_not_under_the_floor(width: int, step: int, floor: int) -> None:
    widths = narrower_widths(width, step, floor)
    assert set(widths) == {w for w in range(floor, width) if w % step == 0}
    assert list(widths) == sorted(widths, reverse=True)


@given(st.floats(26.0, 110.0))
def test_a_candidate_meets_its_target_and_the_next_wider_one_does_not(target: float) -> None:
    graph = two_convolutions()
    for candidate in propose_all(graph, ONE, to(target)):
        assert candidate.price <= target
        assert candidate.block is not None
        wider = candidate.widths[candidate.block] + 8
        assert wider >= graph.widths[candidate.block] or OnePerChannel().price(graph.at_widths({candidate.block: wider})) > target


def test_prices_are_only_asked_for_until_one_meets_the_target() -> None:
    asked: list[int] = []

    class Counting(OnePerChannel):
        def price(self, graph: Graph) -> float:
            asked.append(graph.widths["first"])
            return super().price(graph)

    propose(two_convolutions(), "first", {"latency": Counting()}, to(97.0))
    assert asked == [56, 48]


@pytest.mark.parametrize("width", [8, 7, 1])
def test_nothing_is_narrower_than_the_floor(width: int) -> None:
    assert list(narrower_widths(width)) == []
