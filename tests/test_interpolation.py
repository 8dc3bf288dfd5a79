from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.estimate import Estimate
from profiler.interpolation import Grid
from profiler.layers import LayerSpec, conv2d, depthwise_conv2d, fully_connected

WIDTHS = (8, 16, 32, 64)


def pointwise(channels_in: int, channels_out: int) -> LayerSpec:
    return conv2d((1, 14, 14, channels_in), channels_out, 1, activation="relu6")


def staircase_ms(layer: LayerSpec) -> float:
    """A device that works in tiles of eight channels."""
    return 0.01 + -(-layer.in_channels // 8) * -(-layer.out_channels // 8) * 0.003


def estimate(latency_ms: float) -> Estimate:
    return Estimate(latency_ms, 0.99 * latency_ms, 1.01 * latency_ms, 6, 120)


GRID = Grid({layer: estimate(staircase_ms(layer)) for layer in (pointwise(*pair) for pair in product(WIDTHS, WIDTHS))})


@given(st.integers(8, 64), st.integers(8, 64))
def test_a_staircase_is_followed_at_every_width(channels_in: int, channels_out: int) -> None:
    layer = pointwise(channels_in, channels_out)
    found = GRID.interpolate(layer)
    assert found is not None
    assert found.latency_ms == pytest.approx(staircase_ms(layer))


def test_a_half_filled_tile_costs_as_much_as_a_full_one() -> None:
    one, other = GRID.interpolate(pointwise(17, 24)), GRID.interpolate(pointwise(24, 24))
    assert one is not None
    assert one == other


def test_a_width_that_is_fixed_and_no_whole_tile_needs_no_rounding() -> None:
    rows = {fully_connected((1, width), 10): estimate(0.001 * width) for width in WIDTHS}
    found = Grid(rows).interpolate(fully_connected((1, 24), 10))
    assert found is not None
    assert found.latency_ms == pytest.approx(0.024)


@pytest.mark.parametrize("pair", [(72, 16), (16, 72), (4, 16), (200, 200)])
def test_nothing_is_extrapolated(pair: tuple[int, int]) -> None:
    assert GRID.interpolate(pointwise(*pair)) is None


def test_another_kind_of_layer_is_no_neighbour() -> None:
    assert GRID.interpolate(conv2d((1, 14, 14, 24), 24, 3)) is None
    assert GRID.interpolate(conv2d((1, 7, 7, 24), 24, 1, activation="relu6")) is None


def test_an_interpolated_interval_is_wider_than_its_neighbours() -> None:
    found = GRID.interpolate(pointwise(24, 24))
    assert found is not None
    assert found.half_width_ms / found.latency_ms > 0.01


def test_a_missing_corner_is_replaced_by_a_wider_box() -> None:
    rows = {
        layer: estimate(staircase_ms(layer)) for layer in (pointwise(*pair) for pair in product(WIDTHS, WIDTHS) if pair != (16, 16))
    }
    found = Grid(rows).interpolate(pointwise(16, 16))
    assert found is not None
    assert found.latency_ms == pytest.approx(staircase_ms(pointwise(16, 16)))


def test_depthwise_layers_are_interpolated_along_their_channels() -> None:
    rows = {depthwise_conv2d((1, 14, 14, width), 3): estimate(0.01 * width) for width in WIDTHS}
    found = Grid(rows).interpolate(depthwise_conv2d((1, 14, 14, 24), 3))
    assert found is not None
    assert found.latency_ms == pytest.approx(0.24)
