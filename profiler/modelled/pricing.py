"""Costs of a network with one block at each of many widths, computed for all widths at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from profiler.errors import HardwareError, LayerError
from profiler.layers.channels import DependentLayer, dependent_layers
from profiler.layers.graph import Graph
from profiler.modelled.model import Model
from profiler.modelled.work import Array

LATENCY, ENERGY = range(2)


class ModelledPricer:
    """Prices of one network, at its present widths but for one block: in ms or, for `ENERGY`, in mJ."""

    def __init__(self, model: Model, graph: Graph, quantity: int) -> None:
        self._model, self._graph, self._quantity, self._widths = model, graph, quantity, graph.widths
        self._layers = dependent_layers(graph)
        # the price of each layer at the present widths, for the blocks that it does not depend on
        self._now = [self._priced(layer, next(iter(self._widths), ""), None) for layer in self._layers]

    def prices(self, block: str, widths: Sequence[int]) -> list[float]:
        """The network's price with the block at each of these widths; NaN where a layer cannot run or follow."""
        total = np.zeros(len(widths))
        for layer, now in zip(self._layers, self._now, strict=True):
            total += self._priced(layer, block, widths) if block in layer.blocks else now
        return [float(price) for price in total]

    def _priced(self, dependent: DependentLayer, block: str, widths: Sequence[int] | None) -> Array:
        layer = dependent.node.layer
        try:
            if widths is None:
                channels = [np.array([float(shape[-1] if shape else 1)]) for shape in layer.inputs]
                return self._model.many(layer, channels, np.array([float(layer.out_channels)]), dependent.node.name)[self._quantity]
            if layer.opaque is not None:
                return np.array([self._one(dependent.node.name, block, width) for width in widths])
            values = np.array(widths, dtype=np.int64)
            given = [form.along(block, values, self._widths).astype(np.float64) for form in dependent.given]
            outputs = dependent.output.along(block, values, self._widths).astype(np.float64)
            found = self._model.many(layer, given, outputs, dependent.node.name)[self._quantity]
        except HardwareError:
            return np.full(1 if widths is None else len(widths), math.nan)
        if layer.least_channels > 1:
            for many in (given[0], outputs):  # there is no layer whose channels its groups do not divide
                found = np.where((many % layer.groups > 0) | (many < layer.least_channels), math.nan, found)
        return found

    def _one(self, name: str, block: str, width: int) -> float:
        """The price of a layer that was cut out of a file and follows widths, as its operations allow."""
        try:
            cost = self._model.cost(self._graph.layer_at(name, {block: int(width)}), name)
        except LayerError:
            return math.nan
        return (cost.latency_ms, cost.energy_mj)[self._quantity]
