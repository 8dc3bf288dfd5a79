"""The latency of each family of layers against its channels: predictions for every width, and measurements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
    """A family's latency along one of its channel counts, the other held fixed."""

    label: str
    """The width that is held fixed, such as `256 in`; empty if there is none."""
    answers: tuple[tuple[int, Estimate | None], ...]
    """Predictions for the widths from the smallest measured to the largest; None where the table cannot tell."""
    measured: tuple[tuple[int, Estimate], ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """A family of layers that differ in their channels only."""

    title: str
    detail: str
    axis: str
    """The channels along which its curves run."""
    curves: tuple[Curve, ...]
    full_ms: float
    """The latency of its slowest measured layer."""


def panels(table: Table) -> list[Panel]:
    """A panel for each family that was measured at two widths at least, the slowest first."""
    predictor = Predictor(table)
    found = [_panel(predictor, rows, swept) for rows in _families(table) if (swept := _swept_axis(rows)) is not None]
    return sorted(found, key=lambda panel: -panel.full_ms)


def undrawn(table: Table) -> list[LayerSpec]:
    """The layers that are in no panel, because there is no other width of them to compare with."""
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
    """The last axis that varies while the others are fixed, so the outputs if they vary; None if there is none."""
    axes = range(len(max(rows)))
    for axis in reversed(axes):
        others = Counter(_without(widths, axis) for widths in rows)
        if max(others.values()) > 1:
            return axis
    return None


def _fixed_widths(rows: Mapping[Widths, LayerSpec], axis: int) -> list[int]:
    """The smallest, the middle and the largest of the widths measured most often; more curves could not be told apart."""
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
            continue  # its groups do not divide so many channels
        answers.append((width, hit.estimate if hit else None))
    return Curve(label, tuple(answers), tuple((width, predictor.table.rows[layer]) for width, layer in known.items()))


def _at(layer: LayerSpec, swept: int, width: int) -> LayerSpec:
    """The layer with another number of channels on one axis."""
    if layer.op in FREE_OUTPUT and swept == 1:
        return layer.resized(layer.inputs, width)
    shapes = [(*shape[:-1], width if shape[-1] == layer.in_channels else shape[-1]) for shape in layer.inputs]
    return layer.resized(shapes)


def _without(widths: Widths, axis: int) -> Widths:
    return widths[:axis] + widths[axis + 1 :]


def _names(layer: LayerSpec) -> tuple[str, str]:
    """A family's title, and its other properties."""
    title = layer.op if layer.kernel == (1, 1) and layer.op != "conv2d" else f"{layer.op} {layer.kernel[0]}×{layer.kernel[1]}"
    sizes = ["×".join(map(str, shape[1:-1])) for shape in (layer.inputs[0], layer.output)]
    shown = sizes if sizes[0] != sizes[1] else sizes[:1]
    return title, ", ".join([" → ".join(filter(None, shown)), *_traits(layer)]).removeprefix(", ")


def _traits(layer: LayerSpec) -> Sequence[str]:
    named = {
        f"stride {layer.stride[0]}": layer.stride != (1, 1),
        f"dilation {layer.dilation[0]}": layer.dilation != (1, 1),
        f"{layer.groups} groups": layer.least_channels > 1,
        layer.activation: layer.activation != "none",
        "no bias": not layer.bias,
        layer.dtype: layer.dtype != "float32",
    }
    return [name for name, holds in named.items() if holds]
