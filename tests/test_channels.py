from __future__ import annotations

import pytest
from graphs import mobilenet_v1
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import LayerError
from profiler.latency.staircase import widths_of
from profiler.layers.channels import at_channels, dependent_layers, multiples, nearest, possible_widths
from profiler.layers.expressions import ChannelExpression
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec, OpaqueSubgraph, conv2d
from profiler.tables.plan import make_plan

NETWORK = mobilenet_v1(0.5, 32, classes=10, pairs=4)
PLAN = make_plan(NETWORK)


@given(st.sampled_from((*PLAN.fit, *PLAN.check)))
def test_the_forms_say_what_narrowing_makes_of_every_layer(widths: dict[str, int]) -> None:
    narrow = NETWORK.at_widths(widths)
    for layer, node in zip(dependent_layers(NETWORK), narrow.nodes, strict=True):
        channels = [form.at(narrow.widths) for form in layer.axes]
        assert tuple(channels) == widths_of(node.layer)
        assert at_channels(layer.node.layer, channels) == node.layer
        assert layer.output.at(narrow.widths) == node.layer.out_channels


def test_a_layer_behind_a_cut_out_can_be_narrowed_and_has_the_channels_that_it_reads() -> None:
    """Whose output, cut out of an ONNX file, is written channels first."""
    before = conv2d((1, 6, 6, 3), 16, 1)
    shuffle = LayerSpec("DepthToSpace", ((1, 16, 6, 6),), (1, 4, 12, 12), opaque=OpaqueSubgraph("0" * 64, 0, "onnx"))
    after = conv2d((1, 12, 12, 4), 24, 3)
    nodes = (
        Node("before", before, ("images",)), Node("shuffle", shuffle, ("before",)), Node("after", after, ("shuffle",), "after"),
        Node("head", conv2d(after.output, 2, 1), ("after",)),
    )  # fmt: skip
    graph = Graph("shuffled", (("images", (1, 6, 6, 3)),), nodes, ("head",))
    assert graph.layer_at("after", {"after": 8}) == conv2d((1, 12, 12, 4), 8, 3)
    assert dependent_layers(graph)[2].axes == (ChannelExpression(4, {}), ChannelExpression(0, {"after": 1}))


def test_a_block_narrower_than_a_step_stays_as_it_is() -> None:
    assert multiples(5, 8) == (5,)
    assert multiples(20, 8) == (8, 16, 20)


def grouped(groups: int, feeds: int = 48, makes: int = 96) -> Graph:
    """A convolution, a grouped one and a head; blocks `feeds` and `makes`."""
    first = conv2d((1, 8, 8, 3), feeds, 1)
    second = conv2d(first.output, makes, 3, groups=groups)
    nodes = (
        Node("feeds", first, ("x",), "feeds"), Node("makes", second, ("feeds",), "makes"),
        Node("head", conv2d(second.output, 2, 1), ("makes",)),
    )  # fmt: skip
    return Graph("grouped", (("x", (1, 8, 8, 3)),), nodes, ("head",))


def test_blocks_of_a_grouped_convolution_are_as_wide_as_its_groups_divide() -> None:
    assert possible_widths(grouped(3), 8) == {"feeds": (24, 48), "makes": (24, 48, 72, 96)}


def test_a_grouped_convolution_keeps_two_channels_in_each_group() -> None:
    assert possible_widths(grouped(24), 8) == {"feeds": (48,), "makes": (48, 72, 96)}
    with pytest.raises(LayerError, match="24 groups need 48 channels"):
        grouped(24).at_widths({"makes": 24})


def test_the_nearest_width_is_the_wider_of_two_as_near() -> None:
    assert [nearest((8, 16, 20), wanted) for wanted in (1, 11, 12, 19, 99)] == [8, 8, 16, 20, 20]


def test_a_form_of_several_blocks_can_take_every_multiple() -> None:
    form = ChannelExpression(3, {"a": 1, "b": 1})
    assert form.choices({"a": (8,), "b": (8, 16)}, 8) == (11, 19, 27)


@pytest.mark.parametrize("block", [1, 8])
@given(st.integers(1, 40), st.integers(1, 40), st.integers(4, 80))
def test_the_inputs_of_a_concatenation_keep_their_shares(block: int, first: int, second: int, units: int) -> None:
    shapes = tuple((1, 4, 4, block * units) for units in (first, second))
    layout = f"nchwc{block}" if block > 1 else ""
    layer = LayerSpec("concat", shapes, (1, 4, 4, block * (first + second)), layout=layout)
    try:
        found = at_channels(layer, [block * units])
    except LayerError:
        assert units * min(first, second) < first + second, "only a share of less than half a block is too small"
        return
    assert found.out_channels == block * units
    assert abs(found.in_channels / found.out_channels - first / (first + second)) <= 0.5 / units + 1e-9
