"""The report's charts as PNG images, with labels at the data instead of legends and colours for colour-blind people, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from netadapt.runs.multi_seed import Spread
from netadapt.runs.records import Verified
from netadapt.training.types import Metric
from profiler.interval import Interval
from profiler.plotting.drawing import BLUE, DPI, GREY, INK, ORANGE, PALE, STYLE, along, boxes, png, put_label

WIDTH_INCHES = 8.0
MARKERS = "sD^vPX"
"""Of the kinds of networks to compare with."""
PERCENT = Metric("accuracy", "accuracy", decimals=1, unit="%", scale=100)
"""An accuracy as a percentage."""


@dataclass(frozen=True, slots=True)
class Point:
    """A network in the chart: its measured latency with the 95 % interval, and its accuracy, 0 to 1, with the spread over seeds."""

    latency_ms: Interval
    accuracy: Spread
    label: str = ""


def accuracy_chart(
    steps: Sequence[Point], finished: Sequence[Point], baselines: Sequence[Point], metric: Metric = PERCENT
) -> bytes:
    """Accuracy against measured latency as a PNG image: the steps as a line with rings, the others as single points.

    `metric` has the name, the unit and the scale of the accuracy on the axis.
    """

    def place(point: Point) -> tuple[float, float]:
        return point.latency_ms.value, metric.scale * point.accuracy.mean

    line = [place(point) for point in steps]
    with mpl.rc_context(STYLE):
        figure, axes = _figure(4.8)
        axes.plot(*zip(*line, strict=True) if line else ([], []), color=BLUE, lw=1.2, alpha=0.45, zorder=1)
        _points(axes, steps, metric.scale, BLUE, "o", 4.5, hollow=True)
        _points(axes, finished, metric.scale, BLUE, "o", 9)
        names = list(dict.fromkeys(point.label for point in baselines))
        for point in baselines:  # a marker for each kind, as colours alone are lost in print
            _points(axes, [point], metric.scale, ORANGE, MARKERS[names.index(point.label) % len(MARKERS)], 8)
        axes.set_xlabel("measured latency (ms)")
        axes.set_ylabel(metric.heading)
        axes.margins(x=0.1, y=0.14)
        axes.grid(axis="y", color="#ECECEC", lw=0.8, zorder=0)
        # a kind that occurs for several budgets is named in a legend: labels would be taken for those of their neighbours
        labels = [point.label for point in (*finished, *baselines)]
        looks = {point.label: (BLUE, "o") for point in finished}
        looks |= {name: (ORANGE, MARKERS[place % len(MARKERS)]) for place, name in enumerate(names)}
        repeated = {name: look for name, look in looks.items() if name and labels.count(name) > 1}
        if repeated:
            handles = [Line2D([], [], color=look[0], marker=look[1], ls="", ms=8, label=name) for name, look in repeated.items()]
            axes.legend(handles=handles, frameon=False, fontsize=10.5, loc="best", labelcolor=INK)
        # labels avoid the line, the large points and each other; the most important ones are placed first
        bars = []
        for point in (*finished, *baselines):
            mean, deviation = metric.scale * point.accuracy.mean, metric.scale * (point.accuracy.deviation or 0.0)
            bars += _cross(point.latency_ms, Interval(mean, mean - deviation, mean + deviation))
        taken = boxes(figure, axes, [*along(line), *bars])
        for points, colour in ((finished, BLUE), (baselines, ORANGE), (steps, GREY)):
            for point in points:
                if point.label not in repeated:
                    put_label(axes, place(point), point.label, colour, taken)
        return png(figure)


def prediction_chart(items: Sequence[Verified], band_percent: float = 5.0) -> bytes:
    """Predicted against measured latency as a PNG image, with the line of equal values and a band of ±`band_percent` around it.

    At least one of the items needs a prediction.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _figure(5.2, width=6.0)
        pairs = [(item.measured_ms, item.predicted_ms, item.step) for item in items if item.predicted_ms is not None]
        shown = [end for measured, predicted, _ in pairs for end in (*_ends(measured), *_ends(predicted))]
        low, high = min(shown), max(shown)
        pad = 0.12 * (high - low) or 0.1 * high  # a single point has no extent
        ends = (max(0.0, low - pad), high + pad)
        share = band_percent / 100
        axes.fill_between(ends, [e * (1 - share) for e in ends], [e * (1 + share) for e in ends], color="#EEF1F4", lw=0, zorder=0)
        axes.plot(ends, ends, color="#9A9A9A", lw=1, zorder=1)
        for measured, predicted, _ in pairs:
            bars = _bar(predicted), _bar(measured)
            axes.errorbar(measured.value, predicted.value, *bars, "o", color=BLUE, ms=5.5, elinewidth=1, zorder=3)
        axes.set(xlim=ends, ylim=ends, xlabel="measured latency (ms)", ylabel="predicted latency (ms)", aspect="equal")
        crosses = [point for measured, predicted, _ in pairs for point in _cross(measured, predicted)]
        taken = boxes(figure, axes, [*along([(ends[0], ends[0]), (ends[1], ends[1])]), *crosses])
        for measured, predicted, step in (pairs[0], pairs[-1]) if len(pairs) > 1 else pairs:
            put_label(axes, (measured.value, predicted.value), "original" if step == 0 else f"step {step}", BLUE, taken)
        where = ends[0] + 0.04 * (ends[1] - ends[0])
        axes.annotate(f"shaded: ±{band_percent:g} %", (where, ends[1]), (0, -4), textcoords="offset points", va="top", color=GREY)
        return png(figure)


def history_chart(widths: Sequence[Mapping[str, int]]) -> bytes:
    """Which block was narrowed when, as a PNG image: a row for each block, a column for each step from the original on.

    The paler a cell, the fewer of the block's channels are left. Where a step has narrowed a block, the cell has its new width.
    """
    original = widths[0]
    with mpl.rc_context(STYLE):
        figure, axes = _figure(1.3 + 0.28 * len(original))
        left = [[100 * step[block] / full for step in widths] for block, full in original.items()]
        cells = axes.imshow(left, cmap="Blues", vmin=0, vmax=100, aspect="auto", interpolation="nearest")
        for row, block in enumerate(original):
            for column, (before, after) in enumerate(pairwise(widths), 1):
                if after[block] != before[block]:
                    colour = "white" if left[row][column] > 55 else INK
                    axes.text(column, row, str(after[block]), ha="center", va="center", color=colour, fontsize=8.5)
        axes.set_yticks(range(len(original)), [f"{block} ({width})" for block, width in original.items()], color=INK)
        axes.set_yticks([row + 0.5 for row in range(len(original) - 1)], minor=True)
        axes.grid(which="minor", axis="y", color="white", lw=2)
        axes.xaxis.set_major_locator(MaxNLocator(20, integer=True))
        axes.set_xlabel("step")
        axes.tick_params(which="both", length=0)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        figure.colorbar(cells, label="channels left (%)", shrink=0.9, aspect=25)
        return png(figure)


def bars_chart(rows: Sequence[tuple[str, float, float]], label: str, texts: Sequence[str]) -> bytes:
    """Horizontal bars as a PNG image: for each row of name, before and after, a slim bar on a broad pale one.

    `label` is that of the axis, and `texts` are written at the ends of the bars.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _figure(0.9 + 0.3 * len(rows))
        places = range(len(rows))
        names, before, after = zip(*rows, strict=True)
        axes.barh(places, before, height=0.72, color=PALE)
        axes.barh(places, after, height=0.36, color=BLUE)
        for place, text in enumerate(texts):
            end = (max(before[place], after[place]), place)
            axes.annotate(text, end, (6, 0), textcoords="offset points", va="center", color=GREY, fontsize=9.5)
        axes.set_yticks(places, names, color=INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)  # the network's first layer on top
        axes.set_xlim(0, max((*before, *after)) * 1.2)
        axes.set_xlabel(label)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return png(figure)


def _figure(height: float, width: float = WIDTH_INCHES) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, figure.add_subplot()


def _points(
    axes: Axes, points: Sequence[Point], scale: float, colour: str, marker: str, size: float, *, hollow: bool = False
) -> None:
    """Draw points with their intervals of latency and, where there are several seeds, their standard deviations."""
    for point in points:
        accuracy = point.accuracy
        upright = None if not accuracy.deviation else [[scale * accuracy.deviation]] * 2
        face = "white" if hollow else colour
        axes.errorbar(
            point.latency_ms.value, scale * accuracy.mean, yerr=upright, xerr=_bar(point.latency_ms), fmt=marker, color=colour,
            mfc=face, ms=size, elinewidth=1, zorder=3,
        )  # fmt: skip


def _cross(across: Interval, up: Interval) -> list[tuple[float, float]]:
    """Points along both error bars of a point, for labels to avoid."""
    (left, right), (low, high) = _ends(across), _ends(up)
    return [*along([(left, up.value), (right, up.value)]), *along([(across.value, low), (across.value, high)])]


def _ends(interval: Interval) -> tuple[float, float]:
    """The ends of an interval; twice its value where they are not known."""
    return (interval.low, interval.high) if interval.known else (interval.value, interval.value)


def _bar(interval: Interval) -> list[list[float]]:
    """The lengths of an error bar below and above the value; 0 where the interval is not known."""
    return [[interval.value - interval.low], [interval.high - interval.value]] if interval.known else [[0.0], [0.0]]
