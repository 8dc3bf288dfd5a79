"""Latencies of a network with one block at each of many widths, as NetAdapt needs them at every step.

Only the layers that depend on the block change. They are interpolated as arrays, and the calibration is linear, so that a step of
MobileNetV1 with every width of every block takes milliseconds. The prices equal those of `Predictor.predict`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from profiler.errors import LayerError
from profiler.latency.calibration import NOTHING, Array, Sums
from profiler.latency.interpolation import family_of
from profiler.layers.blocked import ALIGNMENT, CONVOLUTIONS
from profiler.layers.channels import DependentLayer, at_channels, dependent_layers
from profiler.layers.graph import Graph
from profiler.layers.layer import GLOBAL_POOL_OPS, ITEM_BYTES, POOL_OPS, LayerSpec
from profiler.modelled.pricing import LATENCY, ModelledPricer
from profiler.tables.predictor import Predictor


@dataclass(frozen=True, slots=True)
class _PricedNode:
    """One node of the network at its present widths."""

    dependent: DependentLayer
    family: LayerSpec | None
    """None where channels cannot vary freely, or nothing is interpolated: such a layer is looked up width by width."""
    sums: Sums | None
    """Its terms of the calibration at the present widths; None if the table does not know it."""


class Pricer:
    """Prices of one network, at its present widths but for one block."""

    def __init__(self, predictor: Predictor, graph: Graph) -> None:
        self._predictor, self._widths = predictor, graph.widths
        self._executed = predictor.table.info.rules.entries(graph)
        self._modelled = None if predictor.model is None else ModelledPricer(predictor.model, self._executed, LATENCY)
        self._nodes = [
            _PricedNode(
                dependent,
                family_of(dependent.node.layer) if predictor.interpolates else None,
                predictor.sums_of(dependent.node.layer),
            )
            for dependent in ([] if self._modelled else dependent_layers(self._executed))
        ]

    def prices(self, block: str, widths: Sequence[int]) -> list[float]:
        """The network's latency in ms with the block at each of these widths.

        NaN where a layer is missing, and where other operators would be executed than at the present width.
        """
        if self._modelled is not None:
            return self._modelled.prices(block, widths)
        values = np.array(widths, dtype=np.int64)
        same = self._same_operators(block, values)
        one_by_one = any(node.family is None and block in node.dependent.blocks for node in self._nodes)
        networks = [self._layers_at(block, int(width)) for width in values] if one_by_one else []
        total = NOTHING
        for node in self._nodes:
            if block not in node.dependent.blocks:
                if node.sums is None:
                    return [math.nan] * len(values)
                total += node.sums
            elif node.family is None:
                total += self._one_by_one(node.dependent.node.name, networks)
            else:
                total += self._at_once(node.dependent, node.family, block, values)
        latencies_ms = self._predictor.table.info.calibration.latencies_ms(total)
        prices: list[float] = np.where(same, latencies_ms, math.nan).tolist()
        return prices

    def _same_operators(self, block: str, values: NDArray[np.int64]) -> NDArray[np.bool_]:
        """For each width, whether the network executes the same operators as now (see profiler.layers.blocked)."""
        channels = self._predictor.table.info.block
        layers = [node.dependent.node.layer for node in self._nodes]
        if channels == 1 or not any(layer.op in CONVOLUTIONS and layer.dtype == "float32" for layer in layers):
            return np.ones(values.shape, dtype=np.bool_)  # integers have no blocks (profiler.layers.integers)
        whole = any(
            node.dependent.node.layer.op in (*POOL_OPS, *GLOBAL_POOL_OPS, "concat")
            for node in self._nodes
            if block in node.dependent.blocks
        )
        multiple = channels if whole else ALIGNMENT
        now = self._widths[block]
        same: NDArray[np.bool_] = (values >= channels) & (values % multiple == 0)
        if now < channels or now % multiple:
            same = values == now
        return same

    def _at_once(self, dependent: DependentLayer, family: LayerSpec, block: str, values: NDArray[np.int64]) -> Sums:
        """`sums_of` for an array of widths."""
        layer, calibration = dependent.node.layer, self._predictor.table.info.calibration
        tile = calibration.tile
        channels = [form.along(block, values, self._widths) for form in dependent.axes]
        outputs = dependent.output.along(block, values, self._widths)
        if layer.block > 1:  # as `LayerSpec.resized` does
            plain = [layer.reads_plain, layer.op == "reorder_output"]
            channels = [many if plain[axis] else _whole(many, layer.block) for axis, many in enumerate(channels)]
            outputs = outputs if layer.op == "reorder_output" else _whole(outputs, layer.block)
        item_bytes = ITEM_BYTES.get(layer.dtype, 4)
        layout, narrow = np.zeros(len(values)), np.zeros(len(values))
        given = [channels[0] if shape[-1] == layer.in_channels else np.ones_like(values) for shape in layer.inputs]
        if layer.adds_shortcut:
            given[1] = outputs
        if layer.op == "concat":
            given = [form.along(block, values, self._widths) for form in dependent.given]
        for shape, many in zip((*layer.inputs, layer.output), (*given, outputs), strict=True):
            pixels = math.prod(shape[:-1])
            layout += item_bytes * pixels * (-(-many // tile) * tile)
            narrow += np.where(many < tile, item_bytes * pixels * many, 0)
        latency_ms, _, _ = self._predictor.grid.interpolate_many(family, channels)
        if layer.least_channels > 1:
            for many in channels:  # there is no layer whose channels its groups do not divide
                latency_ms = np.where((many % layer.groups > 0) | (many < layer.least_channels), math.nan, latency_ms)
        return Sums(
            calibration.of_kind(layer.op, latency_ms), layout, narrow, np.ones(len(values)), _weight_bytes(family, channels)
        )

    def _layers_at(self, block: str, width: int) -> dict[str, LayerSpec]:
        """All layers by name with the block at this width; none where one of them cannot follow to it."""
        try:
            return {node.name: node.layer for node in self._executed.at_widths({block: width}).nodes}
        except LayerError:
            return {}

    def _one_by_one(self, name: str, networks: Sequence[Mapping[str, LayerSpec]]) -> Sums:
        """The same for a layer that has no family, by a look-up for each width."""
        found = [self._predictor.sums_of(layers[name]) if name in layers else None for layers in networks]
        return Sums(*np.stack([(sums or Sums(math.nan, 0, 0, 0, 0)).terms() for sums in found], axis=1))


def _whole(channels: NDArray[np.int64], block: int) -> NDArray[np.int64]:
    """Rounded up to whole blocks."""
    return -(-channels // block) * block


def _weight_bytes(family: LayerSpec, channels: Sequence[NDArray[np.int64]]) -> Array:
    """Bytes of weights for arrays of channels. They are linear in the channels of each axis, so that two layers an axis suffice."""
    if not family.weight_shape:
        return np.zeros(len(channels[0]))
    least = max(family.least_channels, family.block)
    ones = (1 if family.block > 1 and family.reads_plain else least, least)
    first = channels[0].astype(np.float64) / ones[0]
    if len(channels) == 1:
        low, high = (_bytes_at(family, (count * ones[0],)) for count in (1, 2))
        return low + (high - low) * (first - 1)
    second = channels[1].astype(np.float64) / ones[1]
    corner, along, across, both = (
        _bytes_at(family, (one * ones[0], two * ones[1])) for one, two in ((1, 1), (2, 1), (1, 2), (2, 2))
    )
    twist = both - along - across + corner
    return corner + (along - corner) * (first - 1) + (across - corner) * (second - 1) + twist * (first - 1) * (second - 1)


@lru_cache(maxsize=10_000)
def _bytes_at(family: LayerSpec, channels: tuple[int, ...]) -> int:
    return at_channels(family, channels).weight_bytes
