"""A line chart of error against time: coordinates that a template writes as SVG, in the page's colours and without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from profiler.serve.building import ErrorPoint

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 24, 14, 34
"""Margins in pixels."""
LEAST_PERCENT = 0.05
"""The lowest error shown. The scale is logarithmic: errors begin at a hundred per cent and end near one."""
STEPS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    at: float
    """The position along the axis, in pixels."""
    text: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A series of points."""

    kind: str
    """The class in the style sheet: error or estimate."""
    points: tuple[tuple[float, float], ...]
    """Positions (x, y) in pixels."""

    @property
    def line(self) -> str:
        """The points as SVG writes them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart in pixels, ready for the template."""

    curves: tuple[Curve, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    limit: float | None
    """The height of the line that marks the error limit; None if it is out of range."""
    description: str
    """The content as text, for readers who cannot see it."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def draw(errors: Sequence[ErrorPoint], estimates: Sequence[ErrorPoint], limit_percent: float, elapsed_s: float) -> Chart | None:
    """Lay out a chart that ends at `elapsed_s`; None if there is no point yet."""
    points = [*errors, *estimates]
    if not points:
        return None
    last_s = max(elapsed_s, *(point.measuring_s for point in points), 1.0)

    # The ends of the vertical scale are ticks, and the limit lies within it.
    percents = [limit_percent, *(point.percent for point in points)]
    lowest = max(LEAST_PERCENT, min(percents))
    highest = max(LEAST_PERCENT, max(percents))
    ticks = _decades(LEAST_PERCENT, 1e12)
    low = max((tick for tick in ticks if tick <= lowest), default=LEAST_PERCENT)
    high = min((tick for tick in ticks if tick >= highest and tick > low), default=1e12)

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / last_s

    def y(percent: float) -> float:
        part = math.log(max(percent, LEAST_PERCENT) / low) / math.log(high / low)
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * part

    curves = [
        Curve(kind, tuple((x(point.measuring_s), y(point.percent)) for point in series))
        for kind, series in (("estimate", estimates), ("error", errors))
        if series
    ]
    # More than seven labels would overlap.
    step = next((step for step in STEPS_S if last_s / step <= 6), STEPS_S[-1])
    across = [Tick(x(step * number), duration(step * number)) for number in range(int(last_s / step) + 1)]
    up = [Tick(y(percent), f"{percent:g} %") for percent in _decades(low, high)]
    limit = y(limit_percent) if low <= limit_percent <= high else None
    return Chart(tuple(curves), tuple(across), tuple(up), limit, _description(errors, estimates, limit_percent))


def duration(seconds: float) -> str:
    """Format a duration with one unit: 45 s, 12 min or 2.5 h."""
    if seconds < 90 and seconds != 60:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _decades(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times each power of ten from `low` to `high`."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**exponent for exponent in exponents for factor in (1, 2, 5)]
    # with a tolerance, because powers of ten below 1 are rounded
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def _description(errors: Sequence[ErrorPoint], estimates: Sequence[ErrorPoint], limit: float) -> str:
    """Return the first and last point of each series, and the limit, as text."""
    parts = []
    for label, series in (("error on held-out networks", errors), ("the build's own estimate", estimates)):
        if series:
            ends = dict.fromkeys((series[0], series[-1]))
            parts.append(f"{label}: {', '.join(f'{point.percent:.1f} % after {duration(point.measuring_s)}' for point in ends)}")
    return f"{'; '.join(parts)}; the limit is {limit:g} %"
