"""Interpolation of latencies between measured widths.

Latency against channels is a staircase (profiler.latency.staircase). A width has a coordinate on it, the channels of the tiles it
needs, and a phase, the empty channels of the last tile. Between measured widths of one phase, latency is nearly bilinear in input
and output channels, as the operations and the bytes of a convolution are. It is therefore interpolated bilinearly in the smallest
cell of measured points. Nothing is extrapolated, and nothing is smoothed across steps. For a phase that was not measured, the
latency of the full tile is used, with an interval as wide as the differences between measured phases.

An operator that was extracted from a file, and whose sizes follow widths, has one coordinate without steps: the numbers that it
reads and writes. Most such operators only move or change every number once, and of the others the work grows with them, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from profiler.errors import LayerError
from profiler.interval import Interval
from profiler.latency.staircase import Staircase, Staircases, kind_of, rules_of, widths_of
from profiler.layers.layer import FREE_OUTPUT, LayerSpec
from profiler.measure.estimate import Estimate

Array = NDArray[np.float64]
Phases = tuple[int, ...]

PRIOR_CURVE_PERCENT = 6.0
"""Prior standard deviation of the error of a straight line in the middle of a cell from nothing to full width."""
PRIOR_PHASE_PERCENT = 10.0
"""Prior standard deviation of the difference between a partly filled tile and a full one."""
HALF_WIDTH_DEVIATIONS = 1.96
"""Standard deviations in half of a 95 % interval."""
PRIOR_WEIGHT = 2.0
"""The number of measured points that each prior counts for."""
MOST_KEPT = 10_000
"""Interpolated arrays that are kept, of a kilobyte each."""


@dataclass(frozen=True, slots=True)
class Interpolated:
    """The estimate of a layer from the measured ones around it."""

    estimate: Estimate
    shape_ms: float
    """The part of the half-width of its interval that a measurement of the layer itself would remove: nobody knows how latency runs
    between the measured widths."""


@dataclass(frozen=True, slots=True)
class Between:
    """Interpolated latencies: arrays of one shape, NaN where no measured points surround the widths."""

    latency_ms: Array
    half_ms: Array
    """Half-width of the 95 % interval, from the intervals of the measured points alone."""
    curve: Array
    """Room for curvature: 0 at a measured point, 1 in the middle of a cell from nothing to full width."""
    phase: Array
    """1 where a full tile stands in for a partly filled one, 0 elsewhere."""


class Surface:
    """Measured points of one phase on the grid of their coordinates. Grid nodes that were not measured are filled from others."""

    def __init__(self, points: Mapping[tuple[int, ...], Estimate]) -> None:
        two = [(*at, 0)[:2] for at in points]
        self.axes = [np.array(sorted({at[axis] for at in two}), dtype=np.float64) for axis in (0, 1)]
        # (width, width, quantity): latency_ms, half_ms and curve of every node
        self.nodes = np.full((len(self.axes[0]), len(self.axes[1]), 3), np.nan)
        for at, estimate in zip(two, points.values(), strict=True):
            place = tuple(int(np.searchsorted(axis, value)) for axis, value in zip(self.axes, at, strict=True))
            self.nodes[place] = (estimate.latency_ms.value, estimate.latency_ms.half_width, 0.0)
        while self._fill():
            pass

    def _fill(self) -> bool:
        """Fill every hole that has known nodes on both sides in its row or column. Returns False if there was none.

        A point measured inside a cell of the coarse grid thus splits the cell; the new nodes on the cell's edges are interpolated
        along these edges.
        """
        holes = np.argwhere(np.isnan(self.nodes[:, :, 0]))
        found = []
        for row, column in holes:
            lines = [_on_line(self.axes[0], self.nodes[:, column], row), _on_line(self.axes[1], self.nodes[row, :], column)]
            known = [line for line in lines if line is not None]
            if known:
                found.append((row, column, min(known, key=lambda node: float(node[2]))))
        for row, column, node in found:
            self.nodes[row, column] = node
        return bool(found)

    def at(self, first: Array, second: Array) -> Array:
        """Array of shape (n, 3): latency_ms, half_ms and curve at n coordinates; NaN outside the measured range."""
        low_x, high_x, weight_x, gap_x = _bracket(self.axes[0], first)
        low_y, high_y, weight_y, gap_y = _bracket(self.axes[1], second)
        total = np.zeros((len(first), 3))
        for rows, row_weight in ((low_x, 1 - weight_x), (high_x, weight_x)):
            for columns, column_weight in ((low_y, 1 - weight_y), (high_y, weight_y)):
                weight = (row_weight * column_weight)[:, None]
                if weight.any():
                    # a corner of weight zero may be NaN, which must not reach the sum
                    total += np.where(weight == 0, 0.0, weight * self.nodes[rows, columns])
        total[:, 2] += _bump(weight_x, gap_x) + _bump(weight_y, gap_y)
        return total


def _on_line(axis: Array, nodes: Array, place: int) -> Array | None:
    """A node interpolated between neighbours on one line; None if one side has none. The shape of `nodes` is (width, quantity)."""
    known = np.flatnonzero(~np.isnan(nodes[:, 0]))
    below, above = known[known < place], known[known > place]
    if not len(below) or not len(above):
        return None
    low, high = int(below[-1]), int(above[0])
    weight = (axis[place] - axis[low]) / (axis[high] - axis[low])
    node: Array = (1 - weight) * nodes[low] + weight * nodes[high]
    node[2] += _bump(weight, (axis[high] - axis[low]) / axis[high])
    return node


def _bracket(axis: Array, values: Array) -> tuple[NDArray[np.intp], NDArray[np.intp], Array, Array]:
    """For each value: indices of the nodes below and above, weight of the upper one, and gap in relation to the upper one."""
    high = np.minimum(np.searchsorted(axis, values), len(axis) - 1)
    exact = axis[high] == values
    low = np.where(exact, high, np.maximum(high - 1, 0))
    width = axis[high] - axis[low]
    weight = np.where(exact, 0.0, (values - axis[low]) / np.where(width == 0, np.nan, width))
    weight = np.where((values < axis[0]) | (values > axis[-1]), np.nan, weight)
    return low, high, weight, width / np.maximum(axis[high], 1.0)


def _bump(weight: Array, gap: Array) -> Array:
    """A parabola over the cell: the possible error of a straight line, which grows with the square of the gap."""
    bump: Array = 4 * weight * (1 - weight) * gap**2
    return bump


@dataclass(slots=True)
class Family:
    """Measured layers that differ in channels only."""

    kind: str
    rules: tuple[Staircase, ...]
    points: dict[Phases, dict[tuple[int, ...], Estimate]] = field(default_factory=dict)
    surfaces: dict[Phases, Surface] = field(default_factory=dict)
    exact: dict[tuple[int, ...], Estimate] = field(default_factory=dict)
    """Measured estimates by channels; a measured width is never interpolated."""

    def add(self, widths: Sequence[int], estimate: Estimate) -> None:
        """Add a measured point. Points have to come in ascending order: of widths that share a coordinate, the widest is kept."""
        phases, at = self.place(widths)
        self.points.setdefault(phases, {})[at] = estimate
        self.exact[tuple(widths)] = estimate

    def place(self, widths: Sequence[int]) -> tuple[Phases, tuple[int, ...]]:
        """Phase and coordinate of the width on each axis."""
        pairs = list(zip(self.rules, widths, strict=True))
        return tuple(rule.phase(width) for rule, width in pairs), tuple(rule.coordinate(width) for rule, width in pairs)

    def surface(self, phases: Phases) -> Surface:
        """The measured points of one phase that has any. Made on first use."""
        if phases not in self.surfaces:
            self.surfaces[phases] = Surface(self.points[phases])
        return self.surfaces[phases]

    def at(self, widths: Sequence[NDArray[np.int64]]) -> Between:
        """Latencies at many widths, an array of n channels for each axis; measured ones are as they are."""
        placed = [rule.places(axis) for rule, axis in zip(self.rules, widths, strict=True)]
        found = self.between(np.stack([one for one, _ in placed]), np.stack([one for _, one in placed]).astype(np.float64))
        for place, at_widths in enumerate(zip(*(axis.tolist() for axis in widths), strict=True)):
            measured = self.exact.get(at_widths)
            if measured is not None:
                found.latency_ms[place], found.half_ms[place] = measured.latency_ms.value, measured.latency_ms.half_width
                found.curve[place] = found.phase[place] = 0.0
        return found

    def between(self, phases: NDArray[np.int64], at: Array) -> Between:
        """Interpolate at n coordinates and their phases, arrays of shape (axis, n).

        Where no points of the phase surround the coordinate, the full tile is used.
        """
        second = at[1] if len(at) > 1 else np.zeros(at.shape[1])
        values = np.full((at.shape[1], 3), np.nan)
        for group in set(map(tuple, phases.T.tolist())) & self.points.keys():
            chosen = (np.array(group) == phases.T).all(axis=1)
            values[chosen] = self.surface(group).at(at[0][chosen], second[chosen])
        # a width between two multiples of the granularity may run on another kernel altogether: the full tile says nothing of it
        granularity = np.array([[rule.granularity] for rule in self.rules])
        stand_in = np.isnan(values[:, 0]) & phases.any(axis=0) & (phases % granularity == 0).all(axis=0)
        whole = (0,) * len(phases)
        if stand_in.any() and whole in self.points:
            values[stand_in] = self.surface(whole).at(at[0][stand_in], second[stand_in])
        return Between(values[:, 0], values[:, 1], values[:, 2], stand_in.astype(np.float64))

    def left_out(self) -> Iterable[tuple[float, float, float]]:
        """Each point that others surround, interpolated from these: square of the relative error, curve and phase.

        What the measured points themselves may be wrong by is taken off the square, which may therefore be negative.
        """
        for phases, points in self.points.items():
            for at, estimate in points.items():
                others = Family(self.kind, self.rules, self.points | {phases: {k: v for k, v in points.items() if k != at}})
                if not others.points[phases]:
                    others.points.pop(phases)
                # the surfaces of other phases do not change, and they are expensive to make
                others.surfaces = {key: surface for key, surface in self.surfaces.items() if key != phases}
                guess = others.between(np.array([phases]).T, np.array([at], dtype=np.float64).T)
                if not math.isnan(guess.latency_ms[0]):
                    error = guess.latency_ms[0] / estimate.latency_ms.value - 1
                    half_ms = math.hypot(guess.half_ms[0], estimate.latency_ms.half_width)
                    measured = half_ms / HALF_WIDTH_DEVIATIONS / estimate.latency_ms.value
                    yield error**2 - measured**2, float(guess.curve[0]), float(guess.phase[0])


class Grid:
    """All measured layers of a table, by family."""

    def __init__(self, rows: Mapping[LayerSpec, Estimate], staircases: Staircases) -> None:
        self._families: dict[LayerSpec, Family] = {}
        for layer, estimate in sorted(rows.items(), key=lambda row: _widths_of(row[0])):
            key = any_family_of(layer)
            if key is not None:
                rules = rules_of(layer, staircases) if layer.opaque is None else (Staircase(1, granularity=1),)
                family = self._families.setdefault(key, Family(kind_of(layer), rules))
                family.add(_widths_of(layer), estimate)
        self._kept: dict[tuple[object, ...], Array] = {}

    def interpolate(self, layer: LayerSpec) -> Interpolated | None:
        """The estimate from the measured points around the layer, its interval widened accordingly; None if none surround it."""
        key = any_family_of(layer)
        if key is None or key not in self._families:
            return None
        family = self._families[key]
        found = family.at([np.array([width]) for width in _widths_of(layer)])
        middle = float(found.latency_ms[0])
        if math.isnan(middle):
            return None
        curve_spread, phase_spread = self.spreads[family.kind]
        shape_ms = 2 * float(np.hypot(curve_spread * found.curve[0], phase_spread * found.phase[0])) * middle
        half = float(np.hypot(found.half_ms[0], shape_ms))
        points = [point for group in family.points.values() for point in group.values()]
        rounds, quiet = min(point.rounds for point in points), min(point.quiet_rounds for point in points)
        interval_ms = Interval(middle, max(0.0, middle - half), middle + half)
        return Interpolated(Estimate(interval_ms, rounds, 0, quiet), shape_ms)

    def latency_ms(self, layer: LayerSpec) -> float | None:
        """The latency of `interpolate` without its interval, which takes much longer to compute the first time."""
        key = any_family_of(layer)
        if key is None or key not in self._families:
            return None
        middle = float(self._families[key].at([np.array([width]) for width in _widths_of(layer)]).latency_ms[0])
        return None if math.isnan(middle) else middle

    def cell(self, layer: LayerSpec) -> object:
        """A key that layers share if they lie between the same points; the layer itself if its family was not measured."""
        key = any_family_of(layer)
        family = self._families.get(key) if key is not None else None
        if family is None:
            return layer
        phases, at = family.place(_widths_of(layer))
        if phases not in family.points:
            return key, phases
        axes = family.surface(phases).axes
        return key, phases, *(int(np.searchsorted(axis, value)) for axis, value in zip(axes, (*at, 0), strict=False))

    def latencies_ms(self, family_key: LayerSpec, widths: Sequence[NDArray[np.int64]]) -> Array:
        """Latencies in ms at many widths, an array of n channels for each axis: of shape (n,), NaN where no points surround them.

        It is read-only and kept: most layers of a network that is searched are asked for at the same widths again at the next step.
        """
        key = (family_key, *(axis.tobytes() for axis in widths))
        if key not in self._kept:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            family = self._families.get(family_key)
            found = np.full(len(widths[0]), np.nan) if family is None else family.at(widths).latency_ms
            found.setflags(write=False)
            self._kept[key] = found
        return self._kept[key]

    @cached_property
    def spreads(self) -> dict[str, tuple[float, float]]:
        """For each kind of layer, the relative standard deviations of the errors from curvature, for a curve of 1, and from phases.

        They come from interpolating each measured point from others of its family, and from a prior that counts as a few points.
        That takes long, and only intervals need it: prices do not.
        """
        seen: dict[str, list[tuple[float, float, float]]] = {}
        for family in self._families.values():
            for phases in family.points:
                family.surface(phases)
            seen.setdefault(family.kind, []).extend(family.left_out())
        return {kind: _spreads(points) for kind, points in seen.items()}


def _spreads(points: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """The standard deviations for curvature and for phases, from squared errors, curves and phases of interpolated points."""
    # of curvature: errors without a stand-in, in proportion to their curve; the prior stands for points of a curve of a quarter
    curved = [(square, curve) for square, curve, phase in points if phase == 0 and curve > 0.01]
    prior = PRIOR_WEIGHT * 0.25**2
    squares = max(0.0, sum(square for square, _ in curved)) + prior * (PRIOR_CURVE_PERCENT / 100) ** 2
    curve_spread = math.sqrt(squares / (sum(curve**2 for _, curve in curved) + prior))
    # of phases: errors where a full tile stood in for a partly filled one
    stand_ins = [square for square, _, phase in points if phase == 1]
    squares = max(0.0, sum(stand_ins)) + PRIOR_WEIGHT * (PRIOR_PHASE_PERCENT / 100) ** 2
    return curve_spread, math.sqrt(squares / (len(stand_ins) + PRIOR_WEIGHT))


def family_of(layer: LayerSpec) -> LayerSpec | None:
    """The layer with the fewest possible channels, equal for all layers of a family; None if channels cannot vary freely."""
    if layer.opaque is not None:
        return None
    inputs_differ = layer.op == "concat" or layer.adds_shortcut
    if not inputs_differ and any(shape[-1] not in (layer.in_channels, 1) for shape in layer.inputs):
        return None
    least = max(layer.least_channels, layer.block)
    first = 1 if layer.reads_plain and layer.block > 1 else least
    unit = [(*shape[:-1], first if place == 0 else least) for place, shape in enumerate(layer.inputs)]
    try:
        # a copy out of blocks takes as long for all outputs of equally many blocks
        return layer.resized(unit, least if layer.op in (*FREE_OUTPUT, "reorder_output") else None)
    except LayerError:
        return None


def any_family_of(layer: LayerSpec) -> LayerSpec | None:
    """What all layers have in common between which latencies are interpolated; None if there are none.

    Extracted operators have it if they are written from one template (profiler.formats.onnx.opaque).
    """
    if layer.opaque is None:
        return family_of(layer)
    return replace(layer, inputs=tuple((1,) * len(shape) for shape in layer.inputs), output=(1,) * len(layer.output))


def _widths_of(layer: LayerSpec) -> tuple[int, ...]:
    """The place of a layer among those of its family."""
    if layer.opaque is None:
        return widths_of(layer)
    return (sum(math.prod(shape) for shape in (*layer.inputs, layer.output)),)
