"""The figures of a table: whole networks on the line where prediction and measurement agree, families as staircases."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, MultipleLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox

from profiler.latency.validation import LIMIT_PERCENT, Checked, HeldOutError
from profiler.measure.estimate import Estimate
from profiler.plotting.drawing import BLUE, GREEN, GREY, INK, ORANGE, STYLE, along, boxes, put_label
from profiler.tables.families import Curve, Panel

COLOURS = (BLUE, ORANGE, GREEN)
NAIVE = "#B3B8BD"
DPI = 150
COLUMNS = 3
PANEL_INCHES, HELD_OUT_INCHES = 3.2, 6.2
LETTER_INCHES = 0.095
"""Width of a letter of the heading, on average."""
TICKS = (1, 2, 2.5, 5, 10)
LOG_RANGE = 20.0
"""Networks whose latencies differ by more than this factor stand on logarithmic axes."""
END_LABELS_PT = 12.0
"""Curves' labels keep at least this distance from each other."""


def overview(held_out: HeldOutError, panels: Sequence[Panel], heading: str, note: str) -> Figure:
    """Everything on one sheet: the held_out on the left, the panels in rows of three beside it."""
    with _style():
        columns, rows = min(COLUMNS, len(panels)), -(-len(panels) // COLUMNS)
        first = 1 if held_out.checked else 0  # the column of the first panel
        widths = [HELD_OUT_INCHES] * first + [PANEL_INCHES] * columns
        height = max(PANEL_INCHES * rows, HELD_OUT_INCHES * first)
        figure = Figure(
            figsize=(max(sum(widths), 8.5), height + 0.7), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
        )
        lines = [line for text in (heading, note) for line in textwrap.wrap(text, int(figure.get_figwidth() / LETTER_INCHES))]
        figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=12, linespacing=1.5)
        grid = figure.add_gridspec(max(rows, 1), len(widths), width_ratios=widths)
        if held_out.checked:
            axes = figure.add_subplot(grid[:, 0], anchor="NW")
        drawn = [figure.add_subplot(grid[place // COLUMNS, first + place % COLUMNS]) for place in range(len(panels))]
        for place, panel in zip(drawn, panels, strict=True):
            _draw_panel(place, panel)
        if held_out.checked:
            _draw_held_out(figure, axes, held_out)  # labels look for room last, once the layout stands
        for place, panel in zip(drawn, panels, strict=True):
            _label_curves(figure, place, panel.curves)
        return figure


def held_out_figure(held_out: HeldOutError) -> Figure:
    with _style():
        figure = Figure(figsize=(5.6, 5.4), dpi=DPI, layout="constrained")
        _draw_held_out(figure, figure.add_subplot(), held_out)
        return figure


def panel_figure(panel: Panel) -> Figure:
    with _style():
        figure = Figure(figsize=(3.9, 3.1), dpi=DPI, layout="constrained")
        axes = figure.add_subplot()
        _draw_panel(axes, panel)
        _label_curves(figure, axes, panel.curves)
        return figure


@contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(STYLE | {"font.size": 10, "svg.fonttype": "path"}):
        yield


# ---------------------------------------------------------------------------------------------------------- whole networks


def _draw_held_out(figure: Figure, axes: Axes, held_out: HeldOutError) -> None:
    items = held_out.checked
    ends = _ends(axes, items)
    share = LIMIT_PERCENT / 100
    axes.fill_between(ends, [e * (1 - share) for e in ends], [e * (1 + share) for e in ends], color="#EEF1F4", lw=0, zorder=0)
    axes.plot(ends, ends, color="#9A9A9A", lw=1, zorder=1)
    axes.plot([c.measured_ms for c in items], [c.naive_ms for c in items], "D", color=NAIVE, ms=4.5, mew=0, zorder=2)
    for item in items:
        spread = [[item.predicted_ms - item.predicted_ms_low], [item.predicted_ms_high - item.predicted_ms]]
        axes.errorbar(item.measured_ms, item.predicted_ms, spread, fmt="o", color=BLUE, ms=5, elinewidth=1, zorder=3)
    axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel="measured latency (ms)", ylabel="predicted latency (ms)")
    axes.set_title("Networks that took no part in fitting", loc="left", fontsize=11)
    points = [point for item in items for point in _covered(item)]
    taken = boxes(figure, axes, [*along([(e, e) for e in ends]), *points])
    _write_statistics(axes, held_out, taken)
    for name, colour, values in (("plain sums of layers", "#8A9096", "naive_ms"), ("predicted", BLUE, "predicted_ms")):
        for item in sorted(items, key=lambda item: -item.measured_ms):
            if put_label(axes, (item.measured_ms, getattr(item, values)), name, colour, taken):
                break


def _ends(axes: Axes, items: Sequence[Checked]) -> tuple[float, float]:
    """What both axes span; they turn logarithmic where the networks differ widely."""
    low = min(min(c.measured_ms, c.predicted_ms, c.predicted_ms_low, c.naive_ms) for c in items)
    high = max(max(c.measured_ms, c.predicted_ms_high, c.naive_ms) for c in items)
    if low > 0 and high / low > LOG_RANGE:
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(NullFormatter())
        return low / 1.2, high * 1.2
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=TICKS))
    pad = 0.08 * (high - low) or 0.1 * high
    return max(0.0, low - pad), high + pad


def _covered(item: Checked) -> list[tuple[float, float]]:
    """Where a network's marks and its error bar stand."""
    bar = [(item.measured_ms, item.predicted_ms_low), (item.measured_ms, item.predicted_ms_high)]
    return [(item.measured_ms, item.naive_ms), *along(bar)]


def _write_statistics(axes: Axes, held_out: HeldOutError, taken: list[Bbox]) -> None:
    """In the corner, above or below the line, that fewer points stand in."""
    lines = [
        f"mean error {held_out.mean_error_percent:.1f} %",
        f"worst {held_out.worst_error_percent:.1f} %",
        f"bias {held_out.bias_percent:+.1f} %",
        f"Spearman {'not defined' if held_out.spearman is None else f'{held_out.spearman:.3f}'}",
        f"inside their 95 % interval: {held_out.coverage_percent:.0f} %",
        f"plain sums: mean error {held_out.naive_mean_error_percent:.1f} %",
        f"shaded: ±{LIMIT_PERCENT:g} %",
    ]
    notes: list[tuple[int, Text]] = []
    for x, y, horizontal, vertical in ((0.03, 0.98, "left", "top"), (0.98, 0.03, "right", "bottom")):
        note = axes.text(
            x, y, "\n".join(lines), transform=axes.transAxes, ha=horizontal, va=vertical, fontsize=9.5, color=INK, linespacing=1.45
        )
        box = note.get_window_extent()
        notes.append((sum(box.overlaps(other) for other in taken), note))
    (_, kept), (_, dropped) = sorted(notes, key=lambda entry: entry[0])
    dropped.remove()
    taken.append(kept.get_window_extent())


# ---------------------------------------------------------------------------------------------------------------- families


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for curve, colour in zip(panel.curves, COLOURS, strict=False):
        widths = [width for width, _ in curve.answers]
        # an unanswered width leaves a hole in the line
        low, middle, high = (
            [math.nan if answer is None else getattr(answer, name) for _, answer in curve.answers]
            for name in ("latency_ms_low", "latency_ms", "latency_ms_high")
        )
        axes.fill_between(widths, low, high, step="mid", color=colour, alpha=0.16, lw=0, zorder=1)
        axes.plot(widths, middle, drawstyle="steps-mid", color=colour, lw=1.3, zorder=2)
        for width, point in curve.measured:
            spread = [[point.latency_ms - point.latency_ms_low], [point.latency_ms_high - point.latency_ms]]
            axes.errorbar(width, point.latency_ms, spread, fmt="o", color=colour, ms=4.5, elinewidth=1, capsize=2, zorder=3)
    axes.set_title(panel.title, loc="left", fontsize=10.5, pad=18)
    axes.annotate(panel.detail, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", color=GREY, fontsize=9)
    axes.set(xlabel=panel.axis, ylabel="latency (ms)")
    last = max(width for curve in panel.curves for width, _ in curve.answers)
    axes.set_xlim(0, last * 1.03)
    axes.set_ylim(0, 1.06 * max(_upper_ms(point) for point in _known(panel)))
    axes.xaxis.set_major_locator(MultipleLocator(_tick_distance(last)))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=TICKS))
    axes.grid(axis="y", color="#ECECEC", lw=0.8, zorder=0)


def _upper_ms(point: Estimate) -> float:
    """The interval's upper end, or the latency where no interval is known."""
    return point.latency_ms if math.isnan(point.latency_ms_high) else point.latency_ms_high


def _known(panel: Panel) -> Iterator[Estimate]:
    for curve in panel.curves:
        yield from (answer for _, answer in curve.answers if answer is not None)


def _tick_distance(last: int) -> int:
    """A power of two, as widths mostly are multiples of one; six ticks at most."""
    return int(2 ** max(0, math.ceil(math.log2(last / 5))))


def _label_curves(figure: Figure, axes: Axes, curves: Sequence[Curve]) -> None:
    """At the right ends, pushed apart where curves end side by side."""
    if len(curves) < 2 and not curves[0].label:
        return
    ends = []
    for curve, colour in zip(curves, COLOURS, strict=False):
        width, point = curve.measured[-1]
        ends.append([axes.transData.transform((width, point.latency_ms))[1] * 72 / figure.dpi, curve.label, colour, width, point])
    ends.sort(key=lambda end: end[0])
    floor = -math.inf
    for y, label, colour, width, point in ends:
        place = max(y, floor + END_LABELS_PT)
        floor = place
        axes.annotate(
            label, (width, point.latency_ms), (8, place - y), textcoords="offset points", va="center", color=colour, fontsize=9.5,
            annotation_clip=False,
        )  # fmt: skip
