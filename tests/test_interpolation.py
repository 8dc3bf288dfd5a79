from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.interval import Interval
from profiler.latency.interpolation import Grid, family_of
from profiler.latency.staircase import Staircase, Staircases
from profiler.layers.layer import LayerSpec, conv2d, depthwise_conv2d, fully_connected
from profiler.measure.estimate import Estimate

FLAT: Staircases = {("conv2d 1x1", "out"): Staircase(32, True)}
PHASED: Staircases = {("conv2d 1x1", "out"): Staircase(32, False)}


def pointwise(channels_in: int, channels_out: int) -> LayerSpec:
    return conv2d((1, 14, 14, channels_in), channels_out, 1, activation="relu6")


def flat_ms(layer: LayerSpec) -> float:
    """A device that works in tiles of 32 output channels."""
    return 0.01 + layer.in_channels * -(-layer.out_channels // 32) * 0.003


def phased_ms(layer: LayerSpec) -> float:
    """The same, but the rest of a tile is done by slower code."""
    return flat_ms(layer) * (1.0 if layer.out_channels % 32 == 0 else 1.2)


def measured(layers: Iterable[LayerSpec], device: Callable[[LayerSpec], float]) -> dict[LayerSpec, Estimate]:
    return {layer: Estimate(Interval(ms := device(layer), 0.99 * ms, 1.01 * ms), 6, 120, 6) for layer in layers}


GRID = Grid(measured((pointwise(*pair) for pair in product((8, 64, 128), (32, 64, 128))), flat_ms), FLAT)


@given(st.integers(1, 16), st.integers(1, 16))
def test_a_flat_staircase_is_followed_at_every_width(tiles_in: int, tiles_out: int) -> None:
    layer = pointwise(8 * tiles_in, 8 * tiles_out)
    found = GRID.interpolate(layer)
    assert found is not None
    assert found.estimate.latency_ms.value == pytest.approx(flat_ms(layer))


@given(st.sampled_from([64, 72, 96, 104]), st.sampled_from([8, 24, 48, 128]))
def test_a_phase_is_interpolated_between_widths_of_that_phase(width: int, channels_in: int) -> None:
    rows = measured((pointwise(*pair) for pair in product((8, 128), (40, 104, 32, 128))), phased_ms)
    found = Grid(rows, PHASED).interpolate(pointwise(channels_in, width))
    assert found is not None
    assert found.estimate.latency_ms.value == pytest.approx(phased_ms(pointwise(channels_in, width)))


def test_a_phase_that_was_not_measured_is_stood_in_for_with_a_wide_interval() -> None:
    grid = Grid(measured((pointwise(*pair) for pair in product((8, 128), (32, 128))), phased_ms), PHASED)
    full, part = grid.interpolate(pointwise(64, 64)), grid.interpolate(pointwise(64, 48))
    assert full is not None
    assert part is not None
    assert part.estimate.latency_ms.value == full.estimate.latency_ms.value
    interval = part.estimate.latency_ms
    assert interval.low < interval.value / 1.15 < interval.value * 1.15 < interval.high


def test_phases_that_differ_little_narrow_what_stands_in_for_them() -> None:
    corners = [pointwise(*pair) for pair in product((8, 128), (32, 128))]
    more = [pointwise(width, 72) for width in (8, 16, 24, 32, 40, 48, 56, 64, 72, 128)]
    before, after = (Grid(measured(layers, flat_ms), PHASED).spreads["conv2d 1x1"][1] for layers in (corners, corners + more))
    assert after < before


def test_less_than_a_tile_is_not_told_by_what_more_than_a_tile_costs() -> None:
    """Runtimes have smaller kernels for so few channels."""
    rows = measured(
        (pointwise(*pair) for pair in product((8, 128), (16, 32, 128))),
        lambda layer: flat_ms(layer) / (1 + (layer.out_channels < 32)),
    )
    half, quarter = (Grid(rows, FLAT).interpolate(pointwise(64, width)) for width in (16, 8))
    assert half is not None
    assert quarter is not None
    assert half.estimate.latency_ms.value == pytest.approx(flat_ms(pointwise(64, 32)) / 2)
    assert quarter.estimate.latency_ms.value == pytest.approx(
        flat_ms(pointwise(64, 32))
    )  # not measured: a full tile stands in, uncertainly
    assert quarter.estimate.latency_ms.half_width > 5 * half.estimate.latency_ms.half_width


def test_a_width_that_is_fixed_and_no_whole_tile_needs_no_rounding() -> None:
    rows = measured((fully_connected((1, width), 10) for width in (8, 64)), lambda layer: 0.001 * layer.in_channels)
    found = Grid(rows, {}).interpolate(fully_connected((1, 24), 10))
    assert found is not None
    assert found.estimate.latency_ms.value == pytest.approx(0.024)


@pytest.mark.parametrize("pair", [(136, 32), (64, 136), (200, 200)])
def test_nothing_is_extrapolated(pair: tuple[int, int]) -> None:
    assert GRID.interpolate(pointwise(*pair)) is None


@pytest.mark.parametrize("pair", [(63, 64), (64, 63), (4, 32)])
def test_a_width_between_two_multiples_is_not_guessed(pair: tuple[int, int]) -> None:
    """On some runtimes it runs on another kernel, three times slower."""
    assert GRID.interpolate(pointwise(*pair)) is None


def test_another_kind_of_layer_is_no_neighbour() -> None:
    assert GRID.interpolate(conv2d((1, 14, 14, 24), 32, 3)) is None
    assert GRID.interpolate(conv2d((1, 7, 7, 24), 32, 1, activation="relu6")) is None
    assert GRID.interpolate(pointwise(24, 32).with_dtype("int8")) is None


def test_an_interpolated_interval_is_wider_than_its_neighbours() -> None:
    found = GRID.interpolate(pointwise(24, 64))
    assert found is not None
    assert found.estimate.latency_ms.half_width / found.estimate.latency_ms.value > 0.011


def test_a_straight_family_is_trusted_more_than_a_curved_one() -> None:
    widths = (8, 16, 32, 64, 96, 128)
    straight, curved = (
        Grid(measured((depthwise_conv2d((1, 14, 14, width), 3) for width in widths), device), {}).spreads["depthwise_conv2d 3x3"][0]
        for device in (lambda layer: 0.01 * layer.in_channels, lambda layer: 0.001 * layer.in_channels**2)
    )
    assert straight < curved


def test_a_point_measured_off_the_grid_bends_the_cell_it_lies_in() -> None:
    corners = measured((pointwise(*pair) for pair in product((8, 128), (32, 128))), flat_ms)
    middle = measured([pointwise(64, 64)], lambda layer: 2 * flat_ms(layer))
    found = Grid(corners | middle, FLAT).interpolate(pointwise(72, 64))
    straight = Grid(corners, FLAT).interpolate(pointwise(72, 64))
    assert found is not None
    assert straight is not None
    assert found.estimate.latency_ms.value > 1.5 * straight.estimate.latency_ms.value


def test_many_widths_are_interpolated_as_each_is() -> None:
    family = family_of(pointwise(8, 8))
    assert family is not None
    pairs = list(product((8, 40, 64, 136), (8, 63, 64, 120)))
    latencies_ms = GRID.latencies_ms(family, [np.array([pair[axis] for pair in pairs]) for axis in (0, 1)])
    singly = [GRID.interpolate(pointwise(*pair)) for pair in pairs]
    assert [None if np.isnan(value) else float(value) for value in latencies_ms] == [
        None if one is None else one.estimate.latency_ms.value for one in singly
    ]


def test_layers_between_the_same_points_share_a_cell() -> None:
    assert GRID.cell(pointwise(16, 96)) == GRID.cell(pointwise(24, 88)) != GRID.cell(pointwise(72, 96))


def noisy(stated: float) -> Grid:
    """A straight family whose points are wrong by 5 % at random, and say so or not."""
    draws, rows = random.Random(3), {}
    for width in range(8, 136, 8):
        value_ms = 0.01 * width * (1 + draws.gauss(0, 0.05))
        interval_ms = Interval(value_ms, value_ms * (1 - 2 * stated), value_ms * (1 + 2 * stated))
        rows[depthwise_conv2d((1, 14, 14, width), 3)] = Estimate(interval_ms, 6, 120, 6)
    return Grid(rows, {})


def test_what_the_measured_points_may_be_wrong_by_is_not_taken_for_a_curve() -> None:
    told, untold = (noisy(stated).spreads["depthwise_conv2d 3x3"][0] for stated in (0.05, 0.0))
    assert told < untold / 2


def test_measuring_a_layer_removes_only_what_is_due_to_interpolation() -> None:
    found = noisy(0.05).interpolate(depthwise_conv2d((1, 14, 14, 56), 3))
    assert found is not None and found.shape_ms == 0.0, "it was measured"
    rows = measured((depthwise_conv2d((1, 14, 14, width), 3) for width in (8, 64)), flat_ms)
    between = Grid(rows, {}).interpolate(depthwise_conv2d((1, 14, 14, 32), 3))
    assert between is not None and 0 < between.shape_ms < between.estimate.latency_ms.half_width


def concat(*widths: int) -> LayerSpec:
    return LayerSpec("concat", tuple((1, 14, 14, width) for width in widths), (1, 14, 14, sum(widths)))


@pytest.mark.parametrize("layer", [concat(16, 48), concat(32, 32), concat(56, 8)])
def test_a_concatenation_is_interpolated_by_all_channels_that_it_copies(layer: LayerSpec) -> None:
    grid = Grid(measured((concat(8, 24), concat(64, 64)), lambda layer: 0.001 * layer.out_channels), {})
    found = grid.interpolate(layer)
    assert found is not None and found.estimate.latency_ms.value == pytest.approx(0.064)
    assert grid.interpolate(concat(16, 16, 32)) is None, "three inputs are another family"
