"""Predictions from a table: the latency of layers, looked up or interpolated, and of networks, by the calibrated sum."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from profiler.errors import HardwareError, LayerNotMeasured, TableError
from profiler.interval import Interval
from profiler.latency.calibration import NOTHING, Calibration, Sums, sums_of
from profiler.latency.interpolation import Grid
from profiler.layers.composite import as_blocks
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import BLOCK_OPS, LayerSpec
from profiler.measure.estimate import Estimate
from profiler.tables.table import Table

MOST_MS = 1e12
"""No network takes thirty years; a table that says so is damaged, and figures beyond it would overflow."""


@dataclass(frozen=True, slots=True)
class LayerLookup:
    """A layer's own latency, before any calibration."""

    estimate: Estimate
    source: Literal["measured", "interpolated", "modelled"]
    shape_ms: float = 0.0
    """The part of the half-width of its interval that a measurement would remove (profiler.latency.interpolation)."""


@dataclass(frozen=True, slots=True)
class LayerPrediction:
    """One layer of a predicted network."""

    node: str
    layer: LayerSpec
    latency_ms: Interval | None
    """Its calibrated share of the network's latency; None if missing."""
    source: Literal["measured", "interpolated", "modelled", "missing"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """A network's latency by a table. Where layers are missing, the latencies are those of the others."""

    latency_ms: Interval
    """Its ends are not known where those of one of the layers are not."""
    naive_ms: float
    """The plain sum of the layers, without calibration, with what a call costs counted once."""
    layers: tuple[LayerPrediction, ...]

    @property
    def missing(self) -> tuple[LayerPrediction, ...]:
        return tuple(layer for layer in self.layers if layer.source == "missing")

    def frame(self) -> pd.DataFrame:
        """A row for each layer in the order of execution: its share of the latency in ms and its source."""
        rows = [
            (
                layer.node,
                layer.layer.op,
                " + ".join("x".join(map(str, shape)) for shape in layer.layer.inputs),
                "x".join(map(str, layer.layer.output)),
                math.nan if layer.latency_ms is None else layer.latency_ms.value,
                layer.source,
            )
            for layer in self.layers
        ]
        return pd.DataFrame(rows, columns=["layer", "op", "input", "output", "latency_ms", "source"])

    def _repr_html_(self) -> str:
        """What a notebook shows: the latency, and the layers."""
        lacking = f"; {len(self.missing)} of {len(self.layers)} layers are missing and left out" if self.missing else ""
        return f"<p><b>{self.latency_ms.text('ms')}</b>{lacking}</p>{self.frame().to_html(index=False)}"


class Predictor:
    """What one table says of layers and networks. Interpolation and lookups are prepared once and shared by all predictions.

    A modelled table computes every layer, those of its rows included, and interpolates nothing.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.model = table.info.model
        # nothing is known of the steps of a device that others have measured, so that their rows are never interpolated
        self.interpolates = table.info.imported is None and self.model is None
        self._entry = table.info.rules.entry if self.interpolates else _as_it_is
        self._rows = {self._entry(layer): row for layer, row in table.rows.items()}
        self.grid = Grid(self._rows if self.interpolates else {}, table.info.staircases)
        self._blocks = frozenset(layer for layer in table.rows if layer.op in BLOCK_OPS)
        self._lookups: dict[tuple[LayerSpec, str], LayerLookup | None] = {}
        self._sums: dict[tuple[LayerSpec, str], Sums | None] = {}

    def with_calibration(self, calibration: Calibration) -> Predictor:
        """The same with another calibration. Lookups do not depend on it, so they are shared."""
        other = copy(self)
        other.table = self.table.with_calibration(calibration)
        other._sums = {}
        return other

    def lookup(self, layer: LayerSpec, node: str = "") -> LayerLookup | None:
        """The layer's estimate, measured, interpolated or modelled; None if the table has none.

        `node` is its name in the network, by which a model knows how many of its values are zero.
        """
        place = (layer, node if self.model is not None and self.model.densities is not None else "")
        if place not in self._lookups and self.model is not None:
            try:
                self._lookups[place] = LayerLookup(modelled(self.model.cost(layer, node).latency_ms), "modelled")
            except HardwareError:
                self._lookups[place] = None
        if place not in self._lookups:
            entry = self._entry(layer)
            row = self._rows.get(entry)
            between = None if row else self.grid.interpolate(entry)
            self._lookups[place] = (
                LayerLookup(row, "measured")
                if row
                else LayerLookup(between.estimate, "interpolated", between.shape_ms)
                if between
                else None
            )
        return self._lookups[place]

    def why_missing(self, layer: LayerSpec) -> str | None:
        """Why a layer that the table lacks could not be measured, or modelled; None if that was never tried."""
        if self.model is not None:
            try:
                self.model.cost(layer)
            except HardwareError as exc:
                return str(exc)
        return self.table.info.failed.get(self._entry(layer).key)

    def sums_of(self, layer: LayerSpec, node: str = "") -> Sums | None:
        """The layer's terms of the calibration; None if it is missing. `node` as for `lookup`."""
        place = (layer, node)
        if place not in self._sums:
            latency_ms = self._alone_ms(layer, node)
            self._sums[place] = None if latency_ms is None else sums_of(layer, latency_ms, self.table.info.calibration)
        return self._sums[place]

    def _alone_ms(self, layer: LayerSpec, node: str) -> float | None:
        """The latency of `lookup`, without its interval where that is not known yet: prices need none."""
        if self.model is not None or (layer, "") in self._lookups:
            found = self.lookup(layer, node)
            return None if found is None else found.estimate.latency_ms.value
        entry = self._entry(layer)
        row = self._rows.get(entry)
        return self.grid.latency_ms(entry) if row is None else row.latency_ms.value

    def sums(self, graph: Graph) -> Sums:
        """The network's terms of the calibration: sums over the layers that the table knows."""
        return sum((sums for node in self._nodes(graph) if (sums := self.sums_of(node.layer, node.name)) is not None), NOTHING)

    def predict(self, graph: Graph) -> Prediction:
        """The network's calibrated latency. `LayerNotMeasured` if one of its layers is missing."""
        prediction = self.explain(graph)
        if prediction.missing:
            first, count = prediction.missing[0], len(prediction.missing)
            for missing in prediction.missing:
                if why := self.why_missing(missing.layer):
                    raise LayerNotMeasured(
                        f"{missing.layer.key} ({missing.node} of {graph.name}) could not be measured for the "
                        f"{self.table.info.target.runtime} table: {why}; use another runtime, or a network without it"
                    )
            raise LayerNotMeasured(
                f"{first.layer.key} ({first.node} of {graph.name}) is not in the {self.table.info.target.runtime} table"
                f"{f', nor are {count - 1} more' if count > 1 else ''}; add the network to it with `profile build`"
            )
        return prediction

    def explain(self, graph: Graph) -> Prediction:
        """Like `predict`, but missing layers are listed instead of raised. `TableError` for a table of impossible figures."""
        calibration, nodes = self.table.info.calibration, self._nodes(graph)
        known = [(node, self.lookup(node.layer, node.name), self.sums_of(node.layer, node.name) or NOTHING) for node in nodes]
        total = sum((sums for _, _, sums in known), NOTHING)
        latency_ms = calibration.latency_ms(total)
        unexplained_ms = 2 * calibration.uncertainty_percent / 100 * latency_ms
        layers = []
        naive_ms, uncertain_ms2 = calibration.call_ms, 0.0
        for node, found, sums in known:
            if found is None:
                layers.append(LayerPrediction(node.name, node.layer, None, "missing"))
                continue
            share_ms = calibration.share_ms(sums, total)
            half_ms = abs(calibration.scale * calibration.kinds.get(node.layer.op, 1.0)) * found.estimate.latency_ms.half_width
            if math.isnan(latency_ms) or max(abs(latency_ms), abs(unexplained_ms), half_ms) > MOST_MS:
                raise TableError(f"the table predicts no possible latency for {graph.name}; is it damaged?")
            interval_ms = Interval(share_ms, share_ms - half_ms, share_ms + half_ms)
            layers.append(LayerPrediction(node.name, node.layer, interval_ms, found.source))
            naive_ms += found.estimate.latency_ms.value - calibration.call_ms
            uncertain_ms2 += half_ms**2
        # layers err independently of each other; what the calibration leaves unexplained of whole networks comes on top
        half_ms = (uncertain_ms2 + unexplained_ms**2) ** 0.5
        # the interval ends at zero, unless the correction subtracts so much that the value itself lies below
        low_ms = min(max(latency_ms - half_ms, 0.0), latency_ms)
        return Prediction(Interval(latency_ms, low_ms, latency_ms + half_ms), naive_ms, tuple(layers))

    def _nodes(self, graph: Graph) -> tuple[Node, ...]:
        """The network's nodes as the runtime executes them, those joined that the table has as one block."""
        executed = self.table.info.rules.executed(graph)
        return as_blocks(executed, self._blocks) if self._blocks else executed.nodes


def modelled(latency_ms: float) -> Estimate:
    """A computed latency as a row of a table: of no rounds, and nobody knows how far off it is."""
    return Estimate(Interval.unknown(latency_ms), 0, 0, 0)


def _as_it_is(layer: LayerSpec) -> LayerSpec:
    return layer
