"""Latencies of a network with one block at each of many widths, as NetAdapt needs them at every step.

Only the layers that depend on the block change. They are interpolated as arrays, and the calibration is linear, so that a step of
MobileNetV1 with every width of every block takes milliseconds. The prices equal those of `Predictor.predict`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from profiler.errors import LayerError
from profiler.latency.calibration import Array, Sums
from profiler.latency.interpolation import family_of
from profiler.layers.blocked import ALIGNMENT, CONVOLUTIONS
from profiler.layers.channels import DependentLayer, dependent_layers
from profiler.layers.graph import Graph
from profiler.layers.layer import GLOBAL_POOL_OPS, ITEM_BYTES, POOL_OPS, LayerSpec
from profiler.modelled.pricing import LATENCY, ModelledPricer
from profiler.tables.predictor import Predictor

_family = lru_cache(maxsize=10_000)(family_of)
MISSING = Sums(math.nan, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class _PricedNode:
    """One node of the network at its present widths."""

    dependent: DependentLayer
    blocks: frozenset[str]
    """Those on whose widths it depends."""
    family: LayerSpec | None
    """None where channels cannot vary freely, or nothing is interpolated: such a layer is looked up width by width."""


class Pricer:
    """Prices of one network, at its present widths but for one block."""

    def __init__(self, predictor: Predictor, graph: Graph) -> None:
        self._predictor, self._widths = predictor, graph.widths
        self._executed = predictor.table.info.rules.entries(graph)
        self._modelled = None if predictor.model is None else ModelledPricer(predictor.model, self._executed, LATENCY)
        self._nodes = [
            _PricedNode(dependent, dependent.blocks, _family(dependent.node.layer) if predictor.interpolates else None)
            for dependent in ([] if self._modelled else dependent_layers(self._executed))
        ]
        # of shape (node, term): the terms of the calibration at the present widths, NaN for layers that the table does not know
        self._terms = np.array([(predictor.sums_of(node.dependent.node.layer) or MISSING).terms() for node in self._nodes])

    def prices(self, block: str, widths: Sequence[int]) -> list[float]:
        """The network's latency in ms with the block at each of these widths.

        NaN where a layer is missing, and where other operators would be executed than at the present width.
        """
        if self._modelled is not None:
            return self._modelled.prices(block, widths)
        values = np.array(widths, dtype=np.int64)
        same = self._same_operators(block, values)
        changes = [block in node.blocks for node in self._nodes]
        total = Sums(*self._terms[~np.array(changes)].sum(axis=0).tolist())
        changing = list(compress(self._nodes, changes))
        one_by_one = any(node.family is None for node in changing)
        networks = [self._layers_at(block, int(width)) for width in values] if one_by_one else []
        for node in changing:
            if node.family is None:
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
            node.dependent.node.layer.op in (*POOL_OPS, *GLOBAL_POOL_OPS, "concat") for node in self._nodes if block in node.blocks
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
        latency_ms = self._predictor.grid.latencies_ms(family, channels)
        if layer.least_channels > 1:
            for many in channels:  # there is no layer whose channels its groups do not divide
                latency_ms = np.where((many % layer.groups > 0) | (many < layer.least_channels), math.nan, latency_ms)
        weights = _weight_bytes(layer, channels[0], outputs)
        return Sums(calibration.of_kind(layer.op, latency_ms), layout, narrow, np.ones(len(values)), weights)

    def _layers_at(self, block: str, width: int) -> dict[str, LayerSpec]:
        """All layers by name with the block at this width; none where one of them cannot follow to it."""
        try:
            return {node.name: node.layer for node in self._executed.at_widths({block: width}).nodes}
        except LayerError:
            return {}

    def _one_by_one(self, name: str, networks: Sequence[Mapping[str, LayerSpec]]) -> Sums:
        """The same for a layer that has no family, by a look-up for each width."""
        found = [self._predictor.sums_of(layers[name]) if name in layers else None for layers in networks]
        return Sums(*np.stack([(sums or MISSING).terms() for sums in found], axis=1))


def _whole(channels: NDArray[np.int64], block: int) -> NDArray[np.int64]:
    """Rounded up to whole blocks."""
    return -(-channels // block) * block


def _weight_bytes(layer: LayerSpec, inputs: NDArray[np.int64], outputs: NDArray[np.int64]) -> Array:
    """`LayerSpec.weight_bytes` for arrays of input and output channels."""
    if not layer.weight_shape:
        return np.zeros(len(inputs))
    item_bytes = ITEM_BYTES[layer.dtype]
    bias_bytes = 0 if not layer.bias else 4 if layer.dtype == "int8" else item_bytes
    inputs_each = 1 if layer.op == "depthwise_conv2d" else inputs / layer.groups
    per_output = item_bytes * math.prod(layer.weight_shape[2:]) * inputs_each + bias_bytes
    return np.multiply(outputs, per_output, dtype=np.float64)
