from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.latency.staircase import Staircase, detect, kind_of, read_staircases, rules_of, staircases_data
from profiler.layers.layer import conv2d, depthwise_conv2d

WIDTHS = range(128, 200, 8)


def sweep(step: int, penalty_ms: float = 0.0, noise: float = 0.0, seed: int = 1) -> list[tuple[int, float]]:
    """A device with tiles of `step` channels, on which a part-filled tile costs more than a full one."""
    draws = random.Random(seed)
    return [
        (width, (0.2 + -(-width // step) * step * 0.01 + penalty_ms * (width % step > 0)) * (1 + draws.gauss(0, noise)))
        for width in WIDTHS
    ]


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("step", [8, 16, 32])
def test_a_flat_staircase_is_found_through_noise(step: int, noise: float) -> None:
    assert detect([sweep(step, noise=noise, seed=seed) for seed in range(3)]) == Staircase(step, True)


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("step", [16, 32])
def test_a_staircase_with_dear_part_filled_tiles_is_found_through_noise(step: int, noise: float) -> None:
    assert detect([sweep(step, 0.4, noise=noise, seed=seed) for seed in range(3)]) == Staircase(step, False)


def test_sweeps_too_short_to_tell_leave_the_default() -> None:
    assert detect([sweep(32)[:3]]) == detect([]) == Staircase()


def test_steps_are_sought_in_multiples_of_the_plans_own() -> None:
    assert detect([sweep(32)], granularity=16).granularity == 16


@given(st.integers(1, 4096), st.sampled_from([8, 16, 32]), st.booleans())
def test_a_width_lies_within_its_tile(width: int, step: int, flat: bool) -> None:
    rule = Staircase(step, flat)
    assert 0 <= rule.coordinate(width) - width < step
    if width >= step:
        assert rule.phase(width) == (rule.coordinate(width) - width) % (8 if flat else step)


@given(st.sampled_from([8, 16, 32]), st.booleans())
def test_below_one_tile_every_width_is_its_own(step: int, flat: bool) -> None:
    rule = Staircase(step, flat)
    phases = [rule.phase(width) for width in range(1, step + 1)]
    assert len(set(phases)) == step


@given(st.lists(st.integers(1, 4096), min_size=1), st.sampled_from([8, 16, 32]), st.booleans())
def test_many_widths_are_placed_as_each_is(widths: list[int], step: int, flat: bool) -> None:
    rule = Staircase(step, flat)
    phases, coordinates = rule.places(np.array(widths))
    assert phases.tolist() == [rule.phase(width) for width in widths]
    assert coordinates.tolist() == [rule.coordinate(width) for width in widths]


def test_an_impossible_step_is_refused() -> None:
    with pytest.raises(ValueError, match="no multiple"):
        Staircase(12, True)


def test_staircases_survive_json() -> None:
    found = {("conv2d 1x1", "out"): Staircase(32, False), ("conv2d 1x1", "in"): Staircase()}
    assert read_staircases(staircases_data(found)) == found


def test_each_axis_of_a_layer_has_its_rule() -> None:
    known = {("conv2d 1x1", "out"): Staircase(32, False)}
    assert rules_of(conv2d((1, 8, 8, 16), 32, 1), known) == (Staircase(), Staircase(32, False))
    assert rules_of(depthwise_conv2d((1, 8, 8, 16), 3), known) == (Staircase(),)


def test_another_precision_is_another_kind() -> None:
    layer = conv2d((1, 8, 8, 16), 32, 1)
    assert kind_of(layer.with_dtype("int8")) != kind_of(layer)
