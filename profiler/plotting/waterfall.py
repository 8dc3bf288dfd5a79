"""Where the latency of a network goes, as a waterfall: each layer begins where the one before it has ended."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from device_agents.support.atomic import write_whole
from profiler.console import sizes
from profiler.errors import TableError
from profiler.plotting.drawing import BLUE, DPI, GREY, INK, ORANGE, PALE, STYLE, png, svg
from profiler.tables.predictor import LayerPrediction, Prediction

WRAPPED = 92
"""Letters in a line of the title."""
MOST_BARS = 60
"""Of more layers, the last ones are drawn as one."""
SEVERAL = "measured and interpolated"
LOOKS = {"measured": (BLUE, ""), "interpolated": (ORANGE, "////"), "modelled": (GREY, "...."), SEVERAL: (PALE, "")}
"""Colour and hatch by where a latency comes from, so that they differ in grey too."""


def write_waterfall(prediction: Prediction, title: str, out: Path) -> None:
    """Write the chart as a .png or .svg file, atomically. `TableError` if it cannot be written or a layer is missing."""
    if out.suffix not in (".png", ".svg") or not out.parent.is_dir():
        raise TableError(f"{out} cannot be written as a chart; give a name ending in .png or .svg in a folder that exists")
    if prediction.missing:
        raise TableError(f"{len(prediction.missing)} layers are missing, so there is no sum to draw; --measure-missing adds them")
    write_whole(
        out, (png if out.suffix == ".png" else svg)(waterfall_figure(prediction, title)), TableError, "; choose another --chart"
    )


def waterfall_figure(prediction: Prediction, title: str) -> Figure:
    """A bar for each layer in the order of execution, in ms, with its share of the network's latency at its end.

    The title may have several lines.
    """
    layers = list(prediction.layers)
    rows: list[tuple[str, float, str]] = [
        (name_of(layer), layer.latency_ms.value if layer.latency_ms else 0.0, layer.source) for layer in layers[:MOST_BARS]
    ]
    if rest := layers[MOST_BARS:]:
        sources = {item.source for item in rest}
        rest_ms = sum(item.latency_ms.value for item in rest if item.latency_ms)
        rows.append((f"{len(rest)} further layers", rest_ms, rest[0].source if len(sources) == 1 else SEVERAL))
    total_ms = prediction.latency_ms.value
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 1.4 + 0.24 * len(rows)), dpi=DPI, layout="constrained")
        axes = figure.add_subplot()
        start_ms = 0.0
        for place, (_, ms, source) in enumerate(rows):
            colour, hatch = LOOKS[source]
            axes.barh(place, ms, left=start_ms, height=0.72, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
            end = (max(start_ms, start_ms + ms), place)
            axes.annotate(
                f"{100 * ms / total_ms:.1f} %", end, (4, 0), textcoords="offset points", va="center", color=GREY, fontsize=8.5
            )
            start_ms += ms
        axes.barh(len(rows), total_ms, height=0.72, color="white", edgecolor=INK, linewidth=1)
        axes.annotate(
            f"{total_ms:.4g} ms", (total_ms, len(rows)), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=8.5
        )
        axes.set_yticks(range(len(rows) + 1), [*(name for name, _, _ in rows), "network"], fontsize=9, color=INK)
        axes.set_ylim(len(rows) + 0.6, -0.6)  # the first layer on top
        axes.set_xlim(0, 1.14 * max(total_ms, start_ms))
        axes.set_xlabel("predicted latency (ms)")
        axes.tick_params(axis="y", length=0)
        axes.xaxis.grid(True, color="#ECECEC")
        axes.set_axisbelow(True)
        shown = dict.fromkeys(source for _, _, source in rows)
        axes.legend(
            handles=[Patch(facecolor=LOOKS[name][0], hatch=LOOKS[name][1], edgecolor="white", label=name) for name in shown],
            loc="lower left", bbox_to_anchor=(0, 1.6 / (len(rows) + 1.2)), frameon=False, fontsize=9.5,
        )  # fmt: skip
        lines = [line for part in title.splitlines() for line in textwrap.wrap(part, WRAPPED)]
        figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=11)
        return figure


def name_of(layer: LayerPrediction) -> str:
    """The operator and the shape of its output: names of nodes are often long and say little."""
    return f"{layer.layer.op} {sizes(layer.layer.output)}"
