"""A line chart of error against time: coordinates that a template writes down as SVG, without a script, in the page's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from profiler.serve.building import ErrorPoint

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 24, 14, 34
LEAST_PERCENT = 0.05
"""The scale is logarithmic: errors begin at a hundred per cent and end at one."""
STEPS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    """Pixels."""
    text: str


@dataclass(frozen=True, slots=True)
class Curve:
    kind: str
    """A class of the style sheet."""
    points: tuple[tuple[float, float], ...]

    @property
    def line(self) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True, slots=True)
class Chart:
    curves: tuple[Curve, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    limit: float | None
    """The height of the line that the error has to get below; None if it is out of sight."""
    description: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def draw(errors: Sequence[ErrorPoint], estimates: Sequence[ErrorPoint], limit_percent: float, until_s: float) -> Chart | None:
    """None if nothing is known yet."""
    points = [*errors, *estimates]
    if not points:
        return None
    last_s = max(until_s, *(point.measuring_s for point in points), 1.0)
    low, high = _range([point.percent for point in points], limit_percent)

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
    step = next((step for step in STEPS_S if last_s / step <= 6), STEPS_S[-1])
    across = [Tick(x(step * number), duration(step * number)) for number in range(int(last_s / step) + 1)]
    up = [Tick(y(percent), f"{percent:g} %") for percent in _decades(low, high)]
    limit = y(limit_percent) if low <= limit_percent <= high else None
    return Chart(tuple(curves), tuple(across), tuple(up), limit, _description(errors, estimates, limit_percent))


def duration(seconds: float) -> str:
    """As a person would say it."""
    if seconds < 90 and seconds != 60:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _range(percents: Sequence[float], limit: float) -> tuple[float, float]:
    """So that the ends of the scale are ticks, and the limit is in sight."""
    low, high = (max(LEAST_PERCENT, end([*percents, limit])) for end in (min, max))
    ticks = _decades(LEAST_PERCENT, 1e12)
    below = [tick for tick in ticks if tick <= low]
    above = [tick for tick in ticks if tick >= high and tick > (below[-1] if below else 0)]
    return (below[-1] if below else LEAST_PERCENT), (above[0] if above else 1e12)


def _decades(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**exponent for exponent in exponents for factor in (1, 2, 5)]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def _description(errors: Sequence[ErrorPoint], estimates: Sequence[ErrorPoint], limit: float) -> str:
    """The same for those who do not see it."""
    said = []
    for what, series in (("error on held-out networks", errors), ("the table's own estimate", estimates)):
        if series:
            ends = dict.fromkeys((series[0], series[-1]))
            said.append(f"{what}: {', '.join(f'{point.percent:.1f} % after {duration(point.measuring_s)}' for point in ends)}")
    return f"{'; '.join(said)}; the limit is {limit:g} %"
