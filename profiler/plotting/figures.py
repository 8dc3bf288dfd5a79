"""The figures of a table: held-out networks, the layers inside them, and families of layers as staircases."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, MaxNLocator, MultipleLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox

from profiler.latency.validation import LIMIT_PERCENT, NEAR_PERCENT, HeldOutError, HeldOutNetwork
from profiler.plotting.drawing import BLUE, GREEN, GREY, INK, ORANGE, STYLE, along, boxes, put_label
from profiler.tables.families import Curve, Panel

COLOURS = (BLUE, ORANGE, GREEN)
MARKERS = ("o", "s", "^")
NAIVE = "#B3B8BD"
DPI = 150
COLUMNS = 3
PANEL_INCHES, HELD_OUT_INCHES = 3.2, 6.2
LETTER_INCHES = 0.095
"""The average width of a letter of the heading."""
TICKS = (1, 2, 2.5, 5, 10)
LOG_RANGE = 20.0
"""The axes are logarithmic if the latencies of the networks differ by more than this factor."""
END_LABELS_PT = 12.0
"""The least distance between the labels of two curves, in points."""


def overview(held_out: HeldOutError, panels: Sequence[Panel], heading: str, note: str) -> Figure:
    """Draw all on one sheet: the held-out networks on the left, and in rows of three beside them their layers and the panels."""
    with _style():
        inside = 1 if held_out.layers else 0  # the panel of the layers
        columns = min(COLUMNS, inside + len(panels))
        rows = math.ceil((inside + len(panels)) / COLUMNS)
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
        places = range(inside + len(panels))
        beside = [figure.add_subplot(grid[place // COLUMNS, first + place % COLUMNS]) for place in places]
        drawn = beside[inside:]
        for place, panel in zip(drawn, panels, strict=True):
            _draw_panel(place, panel)
        for place in beside[:inside]:
            _draw_layers(place, held_out)
        if held_out.checked:
            _draw_held_out(
                figure, axes, held_out
            )  # labels are placed last: they avoid what is drawn, and the layout is only final now
        for place, panel in zip(drawn, panels, strict=True):
            _label_curves(figure, place, panel.curves)
        return figure


def held_out_figure(held_out: HeldOutError) -> Figure:
    """Draw predicted against measured latency of the held-out networks."""
    with _style():
        figure = Figure(figsize=(5.6, 5.4), dpi=DPI, layout="constrained")
        _draw_held_out(figure, figure.add_subplot(), held_out)
        return figure


def layers_figure(held_out: HeldOutError) -> Figure:
    """Draw the predicted latency of the layers of held-out networks against their latency inside the network."""
    with _style():
        figure = Figure(figsize=(5.6, 5.4), dpi=DPI, layout="constrained")
        _draw_layers(figure.add_subplot(), held_out)
        return figure


def panel_figure(panel: Panel) -> Figure:
    """Draw one family of layers: latency against channels."""
    with _style():
        figure = Figure(figsize=(3.9, 3.1), dpi=DPI, layout="constrained")
        axes = figure.add_subplot()
        _draw_panel(axes, panel)
        _label_curves(figure, axes, panel.curves)
        return figure


@contextmanager
def _style() -> Iterator[None]:
    """Set the style of all figures, with text as outlines in SVG."""
    with mpl.rc_context(STYLE | {"font.size": 10, "svg.fonttype": "path"}):
        yield


# ---------------------------------------------------------------------------------------------------------- whole networks


def _draw_held_out(figure: Figure, axes: Axes, held_out: HeldOutError) -> None:
    items = held_out.checked
    ends = _ends(axes, items)
    # from back to front: the band of the error limit, the diagonal, the sums of layers, the predictions
    share = LIMIT_PERCENT / 100
    axes.fill_between(ends, [e * (1 - share) for e in ends], [e * (1 + share) for e in ends], color="#EEF1F4", lw=0, zorder=0)
    axes.plot(ends, ends, color="#9A9A9A", lw=1, zorder=1)
    axes.plot([c.measured_ms for c in items], [c.naive_ms for c in items], "D", color=NAIVE, ms=4.5, mew=0, zorder=2)
    for item in items:
        predicted = item.predicted_ms
        spread = [[predicted.value - predicted.low], [predicted.high - predicted.value]]
        axes.errorbar(item.measured_ms, predicted.value, spread, fmt="o", color=BLUE, ms=5, elinewidth=1, zorder=3)
    axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel="measured latency (ms)", ylabel="predicted latency (ms)")
    axes.set_title("Held-out networks", loc="left", fontsize=11)
    points: list[tuple[float, float]] = []
    for item in items:
        error_bar = [(item.measured_ms, item.predicted_ms.low), (item.measured_ms, item.predicted_ms.high)]
        points += [(item.measured_ms, item.naive_ms), *along(error_bar)]
    taken = boxes(figure, axes, [*along([(e, e) for e in ends]), *points])
    _write_statistics(axes, held_out, taken)
    # each series is labelled once, at the slowest network beside which there is room
    slowest = sorted(items, key=lambda item: -item.measured_ms)
    for name, colour, places in (
        ("sums of layers", "#8A9096", [(item.measured_ms, item.naive_ms) for item in slowest]),
        ("predicted", BLUE, [(item.measured_ms, item.predicted_ms.value) for item in slowest]),
    ):
        for place in places:
            if put_label(axes, place, name, colour, taken):
                break


def _ends(axes: Axes, items: Sequence[HeldOutNetwork]) -> tuple[float, float]:
    """Return the range of both axes, in ms, and make them logarithmic if the networks differ widely."""
    low = min(min(c.measured_ms, c.predicted_ms.value, c.predicted_ms.low, c.naive_ms) for c in items)
    high = max(max(c.measured_ms, c.predicted_ms.high, c.naive_ms) for c in items)
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


def _write_statistics(axes: Axes, held_out: HeldOutError, taken: list[Bbox]) -> None:
    """Write the statistics into the upper left or the lower right corner, whichever covers fewer points; add it to `taken`."""
    lines = [
        f"mean error {held_out.mean_error_percent:.1f} %",
        f"worst error {held_out.worst_error_percent:.1f} %",
        f"bias {held_out.bias_percent:+.1f} %",
        f"Spearman {'not defined' if held_out.spearman is None else f'{held_out.spearman:.3f}'}",
        f"within their 95 % interval: {held_out.coverage_percent:.0f} %",
        f"sums of layers: mean error {held_out.naive_mean_error_percent:.1f} %",
        f"shaded: within {LIMIT_PERCENT:g} %",
    ]
    # Both are drawn, because matplotlib only knows the size of a text that is in a figure.
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


def _draw_layers(axes: Axes, held_out: HeldOutError) -> None:
    layers = [layer for network in held_out.checked for layer in network.layers]
    pairs = [(layer.inside_ms, max(layer.predicted_ms, 0.0)) for layer in layers]
    ends = min(value for pair in pairs for value in pair if value > 0) / 1.2, max(map(max, pairs)) * 1.2
    share = NEAR_PERCENT / 100
    axes.fill_between(ends, [e * (1 - share) for e in ends], [e * (1 + share) for e in ends], color="#EEF1F4", lw=0, zorder=0)
    axes.plot(ends, ends, color="#9A9A9A", lw=1, zorder=1)
    kinds = Counter(layer.kind for layer in layers)
    names = [kind for kind, _ in kinds.most_common(len(COLOURS) - (len(kinds) > len(COLOURS)))]
    for name, colour, marker in zip([*names, "others"] if len(names) < len(kinds) else names, COLOURS, MARKERS, strict=False):
        chosen = [
            pair for layer, pair in zip(layers, pairs, strict=True) if (layer.kind if layer.kind in names else "others") == name
        ]
        axes.plot(*zip(*chosen, strict=True), marker, color=colour, ms=3.5, mew=0, alpha=0.7, zorder=2, label=name)
    axes.set(
        xlim=ends, ylim=ends, xscale="log", yscale="log", aspect="equal", xlabel="inside the network (ms)", ylabel="predicted (ms)"
    )
    axes.set_title("Layers of held-out networks", loc="left", fontsize=10.5, pad=18)
    said = f"{held_out.near_percent:.0f} % of {held_out.layers} within {NEAR_PERCENT:g} % (shaded)"
    axes.annotate(said, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", color=GREY, fontsize=9)
    axes.legend(frameon=False, loc="lower right", fontsize=9, handletextpad=0.2, borderpad=0, labelcolor="linecolor")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 3) if ends[1] / ends[0] < 300 else (1,)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


# ---------------------------------------------------------------------------------------------------------------- families


def _draw_panel(axes: Axes, panel: Panel) -> None:
    """Draw a family: predictions as steps with their intervals, measurements as points with error bars."""
    for curve, colour in zip(panel.curves, COLOURS, strict=False):
        widths = [width for width, _ in curve.answers]
        # NaN, for a width that the table cannot predict, leaves a gap in the line
        low, middle, high = (
            [math.nan if answer is None else getattr(answer.latency_ms, name) for _, answer in curve.answers]
            for name in ("low", "value", "high")
        )
        axes.fill_between(widths, low, high, step="mid", color=colour, alpha=0.16, lw=0, zorder=1)
        axes.plot(widths, middle, drawstyle="steps-mid", color=colour, lw=1.3, zorder=2)
        for width, point in curve.measured:
            latency_ms = point.latency_ms
            spread = [[latency_ms.value - latency_ms.low], [latency_ms.high - latency_ms.value]]
            axes.errorbar(width, latency_ms.value, spread, fmt="o", color=colour, ms=4.5, elinewidth=1, capsize=2, zorder=3)
    axes.set_title(panel.title, loc="left", fontsize=10.5, pad=18)
    axes.annotate(panel.detail, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", color=GREY, fontsize=9)
    axes.set(xlabel=panel.axis, ylabel="latency (ms)")
    last = max(width for curve in panel.curves for width, _ in curve.answers)
    axes.set_xlim(0, last * 1.03)
    known = [answer for curve in panel.curves for _, answer in curve.answers if answer is not None]
    # without an interval, its ends are NaN
    highest_ms = max(point.latency_ms.high if point.latency_ms.known else point.latency_ms.value for point in known)
    axes.set_ylim(0, 1.06 * highest_ms)
    # at most six ticks, at powers of two because most widths are multiples of one
    axes.xaxis.set_major_locator(MultipleLocator(2 ** max(0, math.ceil(math.log2(last / 5)))))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=TICKS))
    axes.grid(axis="y", color="#ECECEC", lw=0.8, zorder=0)


def _label_curves(figure: Figure, axes: Axes, curves: Sequence[Curve]) -> None:
    """Label the curves at their right ends; labels are pushed apart where curves end close to each other."""
    if len(curves) < 2 and not curves[0].label:
        return
    ends = []
    for curve, colour in zip(curves, COLOURS, strict=False):
        width, point = curve.measured[-1]
        at = (width, point.latency_ms.value)
        ends.append((axes.transData.transform(at)[1] * 72 / figure.dpi, curve.label, colour, at))
    ends.sort(key=lambda end: end[0])
    floor = -math.inf
    for y, label, colour, at in ends:
        place = max(y, floor + END_LABELS_PT)
        floor = place
        axes.annotate(
            label, at, (8, place - y), textcoords="offset points", va="center", color=colour, fontsize=9.5,
            annotation_clip=False,
        )  # fmt: skip
