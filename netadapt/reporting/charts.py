"""The report's figures, as PNG files: labels at the data instead of legends, colours that everyone can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from netadapt.runs.records import Verified
from netadapt.training.types import Metric
from profiler.plotting.drawing import BLUE, DPI, GREY, INK, ORANGE, PALE, STYLE, along, boxes, png, put_label

WIDTH_INCHES = 8.0
PERCENT = Metric("accuracy", "accuracy", decimals=1, unit="%", scale=100)


@dataclass(frozen=True, slots=True)
class Point:
    """A network: its measured latency with the 95 % interval, and its accuracy from 0 to 1 with the spread over seeds."""

    ms: float
    ms_low: float
    ms_high: float
    accuracy: float
    label: str = ""
    accuracy_low: float | None = None
    accuracy_high: float | None = None

    def scaled(self, scale: float) -> Point:
        """With accuracies as people read them, low and high always there."""
        low, high = (self.accuracy if found is None else found for found in (self.accuracy_low, self.accuracy_high))
        return replace(self, accuracy=scale * self.accuracy, accuracy_low=scale * low, accuracy_high=scale * high)


def accuracy_chart(steps: Sequence[Point], finished: Sequence[Point], baselines: Sequence[Point], told: Metric = PERCENT) -> bytes:
    """Accuracy, told as this figure, against measured latency: the family as a line, others as single points."""
    steps, finished, baselines = ([point.scaled(told.scale) for point in points] for points in (steps, finished, baselines))
    with mpl.rc_context(STYLE):
        figure, axes = _figure(4.8)
        axes.plot([p.ms for p in steps], [p.accuracy for p in steps], color=BLUE, lw=1.2, alpha=0.45, zorder=1)
        for points, colour, marker, size in ((steps, BLUE, "o", 4.5), (finished, BLUE, "o", 9), (baselines, ORANGE, "s", 8)):
            _points(axes, points, colour, marker, size, hollow=points is steps)
        axes.set_xlabel("measured latency (ms)")
        axes.set_ylabel(told.heading)
        axes.margins(x=0.1, y=0.14)
        axes.grid(axis="y", color="#ECECEC", lw=0.8, zorder=0)
        line = [(p.ms, p.accuracy) for p in steps]
        taken = boxes(figure, axes, [*along(line), *((p.ms, p.accuracy) for p in (*finished, *baselines))])
        for points, colour in ((finished, BLUE), (baselines, ORANGE), (steps, GREY)):
            for point in points:
                put_label(axes, (point.ms, point.accuracy), point.label, colour, taken)
        return png(figure)


def prediction_chart(items: Sequence[Verified], band_percent: float = 5.0) -> bytes:
    """Predicted against measured latency, with both intervals, the line where they agree and a band around it."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(5.2, width=6.0)
        points = [(item.measured_ms, item.predicted_ms, item) for item in items if item.predicted_ms is not None]
        low, high = min(min(x, y) for x, y, _ in points), max(max(x, y) for x, y, _ in points)
        pad = 0.12 * (high - low) or 0.1 * high
        ends = (max(0.0, low - pad), high + pad)
        share = band_percent / 100
        axes.fill_between(ends, [e * (1 - share) for e in ends], [e * (1 + share) for e in ends], color="#EEF1F4", lw=0, zorder=0)
        axes.plot(ends, ends, color="#9A9A9A", lw=1, zorder=1)
        for measured, predicted, item in points:
            left, right = measured - item.measured_ms_low, item.measured_ms_high - measured
            down = predicted - (predicted if item.predicted_ms_low is None else item.predicted_ms_low)
            up = (predicted if item.predicted_ms_high is None else item.predicted_ms_high) - predicted
            axes.errorbar(measured, predicted, [[down], [up]], [[left], [right]], "o", color=BLUE, ms=5.5, elinewidth=1, zorder=3)
        axes.set(xlim=ends, ylim=ends, xlabel="measured latency (ms)", ylabel="predicted latency (ms)", aspect="equal")
        taken = boxes(figure, axes, [*along([(ends[0], ends[0]), (ends[1], ends[1])]), *((x, y) for x, y, _ in points)])
        for measured, predicted, item in (points[0], *points[-1:]) if len(points) > 1 else points:
            put_label(axes, (measured, predicted), "original" if item.step == 0 else f"step {item.step}", BLUE, taken)
        where = ends[0] + 0.04 * (ends[1] - ends[0])
        axes.annotate(f"shaded: ±{band_percent:g} %", (where, ends[1]), (0, -4), textcoords="offset points", va="top", color=GREY)
        return png(figure)


def bars_chart(rows: Sequence[tuple[str, float, float]], label: str, texts: Sequence[str]) -> bytes:
    """Before, as a broad pale bar, and after, as a slim one on it, for each name; `texts` stand at the bars' ends."""
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


def _points(axes: Axes, points: Sequence[Point], colour: str, marker: str, size: float, *, hollow: bool) -> None:
    for point in points:
        spread = [[point.ms - point.ms_low], [point.ms_high - point.ms]]
        low, high = point.accuracy_low, point.accuracy_high
        upright = None if low is None or high is None or low == high else [[point.accuracy - low], [high - point.accuracy]]
        face = "white" if hollow else colour
        axes.errorbar(
            point.ms, point.accuracy, yerr=upright, xerr=spread, fmt=marker, color=colour, mfc=face, ms=size, elinewidth=1, zorder=3
        )
