"""Layers between measured widths.

Latency against channels is a staircase: runtimes work in tiles of 8 or 16 channels, and a half-filled tile costs as much as a
full one. So a width is first rounded up to its tile, and only then interpolated, linearly in each of input and output channels,
between the nearest measured widths around it. Nothing is ever extrapolated, and no smooth curve is laid across the steps.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product

from profiler.errors import LayerError
from profiler.estimate import Estimate
from profiler.layers import LayerSpec

TILE = 8
"""Channels that a kernel works on at once: 8 floats in an AVX register, two NEON registers' worth on Arm."""

Widths = tuple[int, ...]
"""The free channel counts of a layer: (in, out), or (in,) where the output follows the input."""

FREE_OUTPUT = ("conv2d", "conv_transpose2d", "fully_connected")
UNCERTAINTY_PERCENT = 3.0
"""Half-width of an interpolated latency before leave-one-out has said how well this family interpolates."""


@dataclass(slots=True)
class Family:
    """Layers that differ in channels only."""

    points: dict[Widths, Estimate] = field(default_factory=dict)

    def interpolate(self, widths: Widths, without: Widths | None = None) -> Estimate | None:
        """Between the smallest box of measured widths around `widths`; None if there is none."""
        known = [point for point in self.points if point != without]
        axes = [sorted({point[axis] for point in known}) for axis in range(len(widths))]
        # a width that was measured is what it is; any other costs as much as its tile filled up
        at = tuple(width if width in axis else _round_up(width) for width, axis in zip(widths, axes, strict=True))
        box = next(
            (box for box in _boxes(axes, at) if all(corner in self.points and corner != without for corner in product(*box))), None
        )
        if box is None:
            return None
        latency_ms = half_ms = 0.0
        corners = []
        for corner in product(*(sorted({lo, hi}) for lo, hi in box)):
            weight = 1.0
            for width, value, (lo, hi) in zip(corner, at, box, strict=True):
                weight *= 1.0 if lo == hi else (value - lo) / (hi - lo) if width == hi else (hi - value) / (hi - lo)
            latency_ms += weight * self.points[corner].latency_ms
            half_ms += weight * self.points[corner].half_width_ms
            corners.append(self.points[corner])
        rounds, samples = min(point.rounds for point in corners), sum(point.samples for point in corners)
        return Estimate(latency_ms, max(0.0, latency_ms - half_ms), latency_ms + half_ms, rounds, samples)

    def leave_one_out_percent(self) -> list[float]:
        """Errors of predicting each inner point from the others, on a grid coarser than the one in use."""
        errors = []
        for widths, point in self.points.items():
            guess = self.interpolate(widths, without=widths)
            if guess is not None:
                errors.append(abs(guess.latency_ms / point.latency_ms - 1) * 100)
        return errors


class Grid:
    """All measured layers, by family."""

    def __init__(self, rows: Mapping[LayerSpec, Estimate]) -> None:
        self._families: dict[LayerSpec, Family] = {}
        for layer, estimate in rows.items():
            key = _family(layer)
            if key is not None:
                self._families.setdefault(key, Family()).points[_widths(layer)] = estimate
        self._spread_percent: dict[LayerSpec, float] = {}

    def interpolate(self, layer: LayerSpec) -> Estimate | None:
        """Between the layer's neighbours, the interval widened by how badly its family interpolates; None without neighbours."""
        key = _family(layer)
        family = self._families.get(key) if key is not None else None
        if key is None or family is None:
            return None
        between = family.interpolate(_widths(layer))
        if between is None:
            return None
        half_ms = (between.half_width_ms**2 + (self._spread(key, family) / 100 * between.latency_ms) ** 2) ** 0.5
        return replace(between, latency_ms_low=max(0.0, between.latency_ms - half_ms), latency_ms_high=between.latency_ms + half_ms)

    def _spread(self, key: LayerSpec, family: Family) -> float:
        if key not in self._spread_percent:
            errors = sorted(family.leave_one_out_percent())
            # a quarter: leave-one-out spans twice the gap, and a straight line's error grows with the gap squared
            self._spread_percent[key] = (
                max(UNCERTAINTY_PERCENT, errors[int(0.9 * len(errors))] / 4) if errors else UNCERTAINTY_PERCENT
            )
        return self._spread_percent[key]


def _widths(layer: LayerSpec) -> Widths:
    return (layer.in_channels, layer.out_channels) if layer.op in FREE_OUTPUT else (layer.in_channels,)


def _family(layer: LayerSpec) -> LayerSpec | None:
    """The layer with its channels taken out: equal for layers of one family. None where channels cannot vary freely."""
    if layer.cutout is not None or layer.op == "concat" or (layer.groups > 1 and layer.op != "depthwise_conv2d"):
        return None
    if any(shape[-1] not in (layer.in_channels, 1) for shape in layer.inputs):
        return None
    unit = [(*shape[:-1], 1 if shape[-1] == layer.in_channels else shape[-1]) for shape in layer.inputs]
    try:
        return layer.resized(unit, 1)
    except LayerError:
        return None


def _round_up(width: int) -> int:
    """To a whole tile; below one tile every width is its own: three colours are no half-empty tile."""
    return width if width < TILE else -(-width // TILE) * TILE


def _boxes(axes: list[list[int]], at: Widths) -> Iterator[list[tuple[int, int]]]:
    """Boxes around a point, tightest first; an axis that was measured at the very value needs no width."""
    ranges = []
    for values, value in zip(axes, at, strict=True):
        below = values[: bisect_right(values, value)][::-1]
        above = values[bisect_left(values, value) :]
        ranges.append(sorted(((lo, hi) for lo in below for hi in above), key=lambda pair: pair[1] - pair[0]))
    yield from (list(box) for box in product(*ranges))
