"""Where the energy of a network goes, as a stacked chart: a bar for each layer, a colour for each place, shades for data types."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from device_agents.support.atomic import write_whole
from profiler.errors import TableError
from profiler.modelled.breakdown import Breakdown
from profiler.modelled.hardware import DATA_TYPES
from profiler.plotting.drawing import BLUE, GREEN, GREY, INK, ORANGE, STYLE, png, svg

LEVEL_COLOURS: Mapping[str, str] = {
    "dram": BLUE, "buffer": ORANGE, "array": "#CC79A7", "converter": "#CC79A7", "unit": GREEN,
}  # fmt: skip
HATCHES: Mapping[str, str] = {"buffer": "////", "array": "....", "converter": "....", "unit": "\\\\\\\\"}
"""By level, as its colours are hard to tell apart in grey."""
SHADES: Mapping[str, float] = {"input": 1.0, "weight": 0.62, "output": 0.34}
"""How much of a level's colour a data type has; the rest is white."""
COMPUTE, OVERHEAD = "#F0C419", "#B3B8BD"
Kind = tuple[str, str, str, list[float]]
"""A part of the bars: its name, its colour, its hatch, and its energy in each layer in mJ."""
MOST_NAMED = 80
"""The bars of more layers are numbered instead of named."""


def write_breakdown(found: Breakdown, out: Path) -> None:
    """Write the chart as a .png or .svg file, atomically. `TableError` if it cannot be written."""
    if out.suffix not in (".png", ".svg") or not out.parent.is_dir():
        raise TableError(f"{out} cannot be written as a chart; give a name ending in .png or .svg in a folder that exists")
    data = (png if out.suffix == ".png" else svg)(breakdown_figure(found))
    write_whole(out, data, TableError, "; choose another --chart")


def breakdown_figure(found: Breakdown) -> Figure:
    """Energy of each layer, from the bottom up: computation, data from the innermost level outwards, clock and control."""
    with mpl.rc_context(STYLE):
        width = min(max(7.5, 2.5 + 0.34 * len(found.layers)), 40)
        figure = Figure(figsize=(width, 5.4), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        kinds = [
            ("computation", COMPUTE, "", [part.cost.compute_mj for part in found.layers]),
            *_data(found),
            ("clock and control", OVERHEAD, "", [part.cost.overhead_mj for part in found.layers]),
        ]
        shown = [kind for kind in kinds if sum(kind[-1]) > 0]
        _stack(axes, shown)
        share = {name: 100 * sum(parts) / found.energy_mj for name, _, _, parts in shown}
        axes.legend(
            handles=[
                Patch(facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0, label=f"{name}, {share[name]:.0f} %")
                for name, colour, hatch, _ in reversed(shown)
            ],
            loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9.5, labelcolor=INK,
        )  # fmt: skip
        named = len(found.layers) <= MOST_NAMED
        axes.set_xticks(
            range(len(found.layers)),
            [textwrap.shorten(part.node, 28, placeholder="…") if named else str(place) for place, part in enumerate(found.layers)],
            rotation=90, fontsize=8,
        )  # fmt: skip
        axes.tick_params(length=0, axis="x")
        axes.set_xlim(-0.7, len(found.layers) - 0.3)
        axes.set_ylabel("energy of one inference (mJ)")
        axes.yaxis.grid(True, color="#E6E8EA")
        axes.set_axisbelow(True)
        title = (
            f"{found.name}: {found.energy_mj:.4g} mJ, {found.latency_ms:.4g} ms; modelled, not measured: {found.model.sentence()}"
        )
        figure.suptitle("\n".join(textwrap.wrap(title, int(width / 0.088))), x=0.01, ha="left", fontsize=11)
        return figure


def _data(found: Breakdown) -> list[Kind]:
    """Each level and data type."""
    return [
        (
            f"{level}, {kind}s",
            _shade(LEVEL_COLOURS.get(level, GREY), SHADES[kind]),
            HATCHES.get(level, ""),
            [part.cost.data_mj.get(level, {}).get(kind, 0.0) for part in found.layers],
        )
        for level in reversed(found.levels)
        for kind in DATA_TYPES
    ]


def _shade(colour: str, share: float) -> str:
    red, green, blue = (part * share + 1 - share for part in to_rgb(colour))
    return to_hex((red, green, blue))


def _stack(axes: Axes, kinds: Sequence[Kind]) -> None:
    bottom = np.zeros(len(kinds[0][-1])) if kinds else np.zeros(0)
    for _, colour, hatch, heights in kinds:
        axes.bar(range(len(heights)), heights, 0.78, bottom=bottom, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
        bottom = bottom + np.array(heights)
