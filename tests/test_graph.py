from __future__ import annotations

import pytest
from graphs import mobilenet_v1
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import LayerError, PlanError
from profiler.layers.graph import Graph, Node, unique_layers
from profiler.layers.layer import LayerSpec, conv2d

NETWORK = mobilenet_v1(0.5, 64, classes=10, pairs=5)


def residual() -> Graph:
    """Two convolutions of one block, added."""
    first = conv2d((1, 8, 8, 3), 16, 3)
    second = conv2d(first.output, 16, 3)
    total = LayerSpec("add", (first.output, second.output), first.output)
    nodes = (Node("a", first, ("x",), "a"), Node("b", second, ("a",), "a"), Node("sum", total, ("a", "b")))
    return Graph("residual", (("x", (1, 8, 8, 3)),), nodes, ("sum",))


def test_mobilenet_v1_has_the_published_number_of_macs() -> None:
    assert mobilenet_v1().macs == 568_740_352


def test_a_graph_survives_json() -> None:
    assert Graph.from_dict(NETWORK.to_dict()) == NETWORK


@given(st.dictionaries(st.sampled_from(sorted(NETWORK.widths)), st.integers(1, 64)))
def test_narrowing_sets_the_widths_asked_for_and_no_others(widths: dict[str, int]) -> None:
    assert NETWORK.at_widths(widths).widths == NETWORK.widths | widths


@given(st.dictionaries(st.sampled_from(sorted(NETWORK.widths)), st.integers(1, 64)))
def test_narrowing_and_widening_again_gives_the_same_network(widths: dict[str, int]) -> None:
    assert NETWORK.at_widths(widths).at_widths(NETWORK.widths) == NETWORK


def test_depthwise_layers_follow_the_block_before_them() -> None:
    narrow = NETWORK.at_widths({"pw1": 8})
    assert narrow.layer_at("dw2", {}).groups == 8


def test_layers_that_are_added_share_one_width() -> None:
    assert {layer.out_channels for layer in residual().at_widths({"a": 8}).layers} == {8}


def test_a_width_below_one_is_refused() -> None:
    with pytest.raises(LayerError, match="cannot have 0 channels"):
        NETWORK.at_widths({"pw1": 0})


def test_an_unknown_block_is_refused_by_name() -> None:
    with pytest.raises(PlanError, match="no block 'pw99'"):
        NETWORK.at_widths({"pw99": 8})


def test_a_node_that_reads_what_nothing_makes_is_refused() -> None:
    with pytest.raises(PlanError, match="no node before it makes"):
        Graph("g", (("x", (1, 8, 8, 3)),), (Node("a", conv2d((1, 8, 8, 3), 4, 3), ("y",)),), ("a",))


def test_a_node_given_another_shape_than_it_expects_is_refused() -> None:
    with pytest.raises(PlanError, match="expects inputs"):
        Graph("g", (("x", (1, 9, 9, 3)),), (Node("a", conv2d((1, 8, 8, 3), 4, 3), ("x",)),), ("a",))


def test_a_prefix_ends_in_what_it_does_not_use_itself() -> None:
    assert residual().prefix(2).outputs == ("b",)
    assert NETWORK.prefix(4).nodes == NETWORK.nodes[:4]


def test_equal_layers_are_counted_once() -> None:
    full = mobilenet_v1()
    counts = unique_layers(full.layers)
    assert sum(counts.values()) == len(full.nodes)
    assert max(counts.values()) == 5  # the five equal pairs at 14x14


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=6), inner)
    )
)
def test_any_json_that_is_not_a_graph_is_refused_with_our_error(plain: object) -> None:
    with pytest.raises((PlanError, LayerError)):
        Graph.from_dict(plain)  # type: ignore[arg-type]
