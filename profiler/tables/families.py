"""Latency against channels, for figures: the table's answers for all widths of a family, and the measured points among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from profiler.errors import LayerError
from profiler.latency.interpolation import family_of
from profiler.latency.staircase import GRANULARITY, widths_of
from profiler.layers.layer import FREE_OUTPUT, LayerSpec
from profiler.measure.estimate import Estimate
from profiler.tables.predictor import Predictor
from profiler.tables.table import Table

Widths = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """The latency of a family along one channel count, with the other one fixed."""

    label: str
    """The fixed channel count, such as `256 in`; empty if there is none."""
    answers: tuple[tuple[int, Estimate | None], ...]
    """Widths from the smallest measured one to the largest, with the table's estimate; None where it has none."""
    measured: tuple[tuple[int, Estimate], ...]
    """Measured widths with their estimates."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A family: layers that differ in their channels only."""

    title: str
    detail: str
    axis: str
    """The channel count on the horizontal axis."""
    curves: tuple[Curve, ...]
    full_ms: float
    """The latency of the slowest measured layer."""


def panels(table: Table) -> list[Panel]:
    """A panel for each family with at least two measured widths, the slowest first."""
    predictor = Predictor(table)
    found = [_panel(predictor, rows, swept) for rows in _families(table) if (swept := _swept_axis(rows)) is not None]
    return sorted(found, key=lambda panel: -panel.full_ms)


def undrawn(table: Table) -> list[LayerSpec]:
    """The layers that are in no panel, because no other width of them was measured."""
    single = [rows for rows in _families(table) if _swept_axis(rows) is None]
    return [layer for rows in single for layer in rows.values()] + [layer for layer in table.rows if family_of(layer) is None]


def _families(table: Table) -> list[dict[Widths, LayerSpec]]:
    found: dict[LayerSpec, dict[Widths, LayerSpec]] = {}
    for layer in table.rows:
        family = family_of(layer)
        if family is not None:
            found.setdefault(family, {})[widths_of(layer)] = layer
    return list(found.values())


def _panel(predictor: Predictor, rows: Mapping[Widths, LayerSpec], swept: int) -> Panel:
    widest = rows[max(rows)]
    full_ms = max(predictor.table.rows[layer].latency_ms.value for layer in rows.values())
    if len(max(rows)) == 1:
        curves, axis = [_curve(predictor, rows, swept, (), "")], "channels"
    else:
        side, axis = ("out", "input channels") if swept == 0 else ("in", "output channels")
        curves = [_curve(predictor, rows, swept, (width,), f"{width} {side}") for width in _fixed_widths(rows, 1 - swept)]
    return Panel(*_names(widest), axis, tuple(curves), full_ms)


def _swept_axis(rows: Mapping[Widths, LayerSpec]) -> int | None:
    """The last axis with several measured widths at equal widths of the others, outputs before inputs; None if there is none."""
    axes = range(len(max(rows)))
    for axis in reversed(axes):
        others = Counter(_without(widths, axis) for widths in rows)
        if max(others.values()) > 1:
            return axis
    return None


def _fixed_widths(rows: Mapping[Widths, LayerSpec], axis: int) -> list[int]:
    """The smallest, the middle and the largest of the widths measured most often; more curves would not be legible."""
    times = Counter(widths[axis] for widths in rows)
    often = sorted(width for width, count in times.items() if count == max(times.values()))
    return sorted({often[0], often[len(often) // 2], often[-1]})


def _curve(predictor: Predictor, rows: Mapping[Widths, LayerSpec], swept: int, fixed: Widths, label: str) -> Curve:
    known = {widths[swept]: layer for widths, layer in sorted(rows.items()) if _without(widths, swept) == fixed}
    widest = known[max(known)]
    answers = []
    for width in sorted({*range(min(known), max(known) + 1, GRANULARITY), *known}):
        try:
            hit = predictor.lookup(_at(widest, swept, width))
        except LayerError:
            continue  # the groups of the layer do not divide so many channels
        answers.append((width, hit.estimate if hit else None))
    return Curve(label, tuple(answers), tuple((width, predictor.table.rows[layer]) for width, layer in known.items()))


def _at(layer: LayerSpec, swept: int, width: int) -> LayerSpec:
    """The layer with the channels of one axis replaced."""
    if layer.op in FREE_OUTPUT and swept == 1:
        return layer.resized(layer.inputs, width)
    shapes = [(*shape[:-1], width if shape[-1] == layer.in_channels else shape[-1]) for shape in layer.inputs]
    return layer.resized(shapes)


def _without(widths: Widths, axis: int) -> Widths:
    return widths[:axis] + widths[axis + 1 :]


def _names(layer: LayerSpec) -> tuple[str, str]:
    """The title of a family, and further properties by which it differs from others with the same title."""
    title = layer.op if layer.kernel == (1, 1) and layer.op != "conv2d" else f"{layer.op} {layer.kernel[0]}×{layer.kernel[1]}"
    sizes = ["×".join(map(str, shape[1:-1])) for shape in (layer.inputs[0], layer.output)]
    shown = sizes if sizes[0] != sizes[1] else sizes[:1]
    traits = {
        f"stride {layer.stride[0]}": layer.stride != (1, 1),
        f"dilation {layer.dilation[0]}": layer.dilation != (1, 1),
        f"{layer.groups} groups": layer.least_channels > 1,
        layer.activation: layer.activation != "none",
        "no bias": not layer.bias,
        layer.layout: layer.block > 1,
        layer.dtype: layer.dtype != "float32",
    }
    details = [" → ".join(filter(None, shown)), *(name for name, holds in traits.items() if holds)]
    return title, ", ".join(filter(None, details))
