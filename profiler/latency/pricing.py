"""What a network costs with one block at any of many widths, all at once: what NetAdapt asks at every step.

Only the layers that follow the block change; they are looked up as arrays, and the calibration is linear, so a step of MobileNetV1
with every width of every block is priced in milliseconds. The prices are those of `LatencyTable.predict`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from profiler.errors import LayerError
from profiler.latency.calibration import NOTHING, Array, Calibration, Sums, sums_of
from profiler.latency.interpolation import Grid, family_of
from profiler.layers.channels import DependentLayer, at_channels, dependent_layers
from profiler.layers.fusion import fuse_for
from profiler.layers.graph import Graph
from profiler.layers.layer import ITEM_BYTES, LayerSpec
from profiler.measure.estimate import Estimate


class PricedTable(Protocol):
    """What the pricer has to know of a latency table."""

    @property
    def runtime(self) -> str: ...

    @property
    def interpolates(self) -> bool: ...

    @property
    def calibration(self) -> Calibration: ...

    @property
    def tile(self) -> int: ...

    @property
    def grid(self) -> Grid: ...

    def lookup(self, layer: LayerSpec) -> tuple[Estimate, str] | None: ...


@dataclass(frozen=True, slots=True)
class _Part:
    """One node as it is priced now."""

    follower: DependentLayer
    family: LayerSpec | None
    """None where channels cannot vary freely, or nothing is interpolated: such a layer is looked up width by width."""
    sums: Sums | None
    """Its present part of the network; None if the table does not know it."""


class Pricer:
    """Prices for one network at its present widths."""

    def __init__(self, table: PricedTable, graph: Graph) -> None:
        self._table, self.graph, self._widths = table, graph, graph.widths
        executed = fuse_for(graph, table.runtime)
        self._parts = [_Part(follower, self._family(follower), self._now(follower)) for follower in dependent_layers(executed)]
        self._executed = executed

    def _family(self, follower: DependentLayer) -> LayerSpec | None:
        return family_of(follower.node.layer) if self._table.interpolates else None

    def _now(self, follower: DependentLayer) -> Sums | None:
        hit = self._table.lookup(follower.node.layer)
        return sums_of(follower.node.layer, hit[0].latency_ms.value, self._table.tile) if hit else None

    def prices(self, block: str, widths: Sequence[int]) -> Array:
        """Milliseconds of the network with this block so wide, one for each width; NaN where the table cannot tell."""
        values = np.array(widths, dtype=np.int64)
        total = NOTHING
        for part in self._parts:
            if block not in part.follower.blocks:
                if part.sums is None:
                    return np.full(len(values), np.nan)
                total += part.sums
            elif part.family is None:
                total += self._one_by_one(part.follower, block, values)
            else:
                total += self._at_once(part, part.family, block, values)
        return self._table.calibration.latencies_ms(total)

    def _at_once(self, part: _Part, family: LayerSpec, block: str, values: NDArray[np.int64]) -> Sums:
        layer, tile = part.follower.node.layer, self._table.tile
        channels = [form.along(block, values, self._widths) for form in part.follower.axes]
        outputs = part.follower.output.along(block, values, self._widths)
        item_bytes = ITEM_BYTES.get(layer.dtype, 4)
        layout, narrow = np.zeros(len(values)), np.zeros(len(values))
        given = [channels[0] if shape[-1] == layer.in_channels else np.ones_like(values) for shape in layer.inputs]
        if layer.adds_shortcut:
            given[1] = outputs
        for shape, many in zip((*layer.inputs, layer.output), (*given, outputs), strict=True):
            pixels = math.prod(shape[:-1])
            layout += item_bytes * pixels * (-(-many // tile) * tile)
            narrow += np.where(many < tile, item_bytes * pixels * many, 0)
        latency_ms, _ = self._table.grid.interpolate_many(family, channels)
        if layer.least_channels > 1:
            for many in channels:  # what lies between widths that the groups divide is no layer
                latency_ms[(many % layer.groups > 0) | (many < layer.least_channels)] = math.nan
        return Sums(latency_ms, layout, narrow, np.ones(len(values)), _weight_bytes(layer, channels))

    def _one_by_one(self, follower: DependentLayer, block: str, values: NDArray[np.int64]) -> Sums:
        found = []
        for width in values:
            try:
                layer = self._executed.layer_at(follower.node.name, {block: int(width)})
            except LayerError:
                found.append(Sums(math.nan, 0, 0, 0, 0))  # it cannot follow to this width
                continue
            hit = self._table.lookup(layer)
            found.append(sums_of(layer, hit[0].latency_ms.value if hit else math.nan, self._table.tile))
        return Sums(*np.stack([sums.terms() for sums in found], axis=1))


def _weight_bytes(layer: LayerSpec, channels: Sequence[NDArray[np.int64]]) -> Array:
    """For many widths: bytes of weights are linear in the channels of each axis, so a few layers tell all."""
    if not layer.weight_shape:
        return np.zeros(len(channels[0]))
    one = layer.least_channels
    two = 2 * one
    first = channels[0].astype(np.float64) / one
    if len(channels) == 1:
        low, high = (at_channels(layer, [count]).weight_bytes for count in (one, two))
        return low + (high - low) * (first - 1)
    second = channels[1].astype(np.float64) / one
    corner, along, across, both = (at_channels(layer, at).weight_bytes for at in ((one, one), (two, one), (one, two), (two, two)))
    twist = both - along - across + corner
    return corner + (along - corner) * (first - 1) + (across - corner) * (second - 1) + twist * (first - 1) * (second - 1)
