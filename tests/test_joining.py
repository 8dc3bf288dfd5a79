"""Several blocks in one step: where none alone can bring it, and no more of them than it takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_loop import OnePerChannel, chain

from netadapt.resources import Macs, Memory
from netadapt.search.candidates import prices_of, propose_all
from netadapt.search.joining import join_all
from profiler.layers.graph import Graph

GRAPH = chain(a=16, b=16, c=16, d=16)
ONE = {"latency": OnePerChannel()}


def test_blocks_together_bring_what_none_can_alone() -> None:
    assert not propose_all(GRAPH, ONE, {"latency": 48.0})
    assert [candidate.price for candidate in join_all(GRAPH, ONE, {"latency": 48.0})] == [48.0] * 3


def test_a_joined_candidate_is_named_by_its_first_block_and_tells_all() -> None:
    first = join_all(GRAPH, ONE, {"latency": 48.0})[0]
    assert (first.block, first.blocks) == ("a", ("a", "b"))
    assert first.widths == {"a": 8, "b": 8, "c": 16, "d": 16}


def test_equal_networks_are_one_candidate_only() -> None:
    found = [tuple(candidate.widths.values()) for candidate in join_all(GRAPH, ONE, {"latency": 40.0})]
    assert len(set(found)) == len(found)


def test_every_candidate_of_an_iteration_begins_with_another_block() -> None:
    blocks = [candidate.block for candidate in join_all(GRAPH, ONE, {"latency": 40.0})]
    assert len(set(blocks)) == len(blocks)


def test_the_block_that_saves_most_for_its_channels_goes_along() -> None:
    graph = chain(a=16, b=64, c=16)  # eight channels are half of a and of c, and an eighth of b
    found = {candidate.block: candidate.blocks for candidate in join_all(graph, ONE, {"latency": 34.0})}
    assert found["a"] == ("a", "b")


def test_tensors_of_one_size_are_pruned_together_where_each_alone_saves_nothing() -> None:
    graph = chain(a=16, b=16, c=64, d=64, e=16, f=64, g=64)  # the peak is at d and at g
    memory = {"memory": Memory()}
    now = Memory().price(graph)
    assert not propose_all(graph, memory, {"memory": now - 1})
    found = join_all(graph, memory, {"memory": now - 1})
    assert {candidate.block for candidate in found} <= {"c", "d", "f", "g"}
    assert all(candidate.price < now and len(candidate.blocks) == 2 for candidate in found)


def test_what_all_blocks_together_cannot_bring_has_no_candidate() -> None:
    assert join_all(GRAPH, ONE, {"latency": 31.0}) == ()


@pytest.mark.parametrize("target", [40.0, 48.0, 60.0])
def test_no_block_is_narrower_than_the_targets_ask(target: float) -> None:
    for candidate in join_all(GRAPH, ONE, {"latency": target}):
        for block in candidate.blocks:
            wider = GRAPH.at_widths({**candidate.widths, block: candidate.widths[block] + 8})
            assert OnePerChannel().price(wider) > target


@given(st.lists(st.sampled_from([8, 16, 24, 40, 64]), min_size=2, max_size=5), st.floats(0.2, 0.99), st.floats(0.2, 0.99))
def test_joined_candidates_meet_all_targets_and_widen_nothing(widths: list[int], latency: float, macs: float) -> None:
    graph: Graph = chain(**{f"b{place}": width for place, width in enumerate(widths)})
    resources = {"latency": OnePerChannel(), "macs": Macs()}
    now = prices_of(graph, resources)
    targets = {"latency": latency * now["latency"], "macs": macs * now["macs"]}
    for candidate in join_all(graph, resources, targets):
        assert prices_of(graph.at_widths(candidate.widths), resources) == candidate.prices
        assert all(candidate.prices[name] <= target for name, target in targets.items())
        assert {name for name, width in candidate.widths.items() if width < graph.widths[name]} == set(candidate.blocks)
        assert all(candidate.widths[name] <= width for name, width in graph.widths.items())
