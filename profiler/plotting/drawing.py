"""The common style of all figures: labels at the data instead of legends, and colours that colour-blind readers can tell apart."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

# the palette for colour-blind readers by Okabe and Ito, https://jfly.uni-koeln.de/color/
BLUE, ORANGE, GREEN, INK, GREY, PALE = "#0072B2", "#D55E00", "#009E73", "#222222", "#767676", "#D9DCDF"
STYLE: Any = {
    "font.size": 11,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9A9A9A",
    "axes.labelcolor": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "text.color": INK,
    "text.parse_math": False,  # names of layers and networks may hold a dollar sign
}
DPI = 200  # 8 inches are 1600 pixels, so a figure that is shown 800 pixels wide is sharp on any screen
# places for a label beside its point: offset in typographic points, then alignment; the first free place is used
PLACES = (
    (8, 0, "left", "center"),
    (-8, 0, "right", "center"),
    (0, 9, "center", "bottom"),
    (0, -9, "center", "top"),
    (7, 8, "left", "bottom"),
    (-7, 8, "right", "bottom"),
    (7, -8, "left", "top"),
    (-7, -8, "right", "top"),
    (18, -14, "left", "top"),
    (-18, 14, "right", "bottom"),
)


def along(line: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Yield points so dense along a line, given by its corners, that no label fits between two of them."""
    for (x0, y0), (x1, y1) in itertools.pairwise(line):
        yield from ((x0 + (x1 - x0) * k / 60, y0 + (y1 - y0) * k / 60) for k in range(60))
    yield from line[-1:]


def boxes(figure: Figure, axes: Axes, points: Sequence[tuple[float, float]]) -> list[Bbox]:
    """Return a box in pixels around each point, for labels to avoid. This fixes the layout of the figure."""
    figure.draw_without_rendering()
    reach = 4 * figure.dpi / 72  # four typographic points
    centres = [axes.transData.transform(point) for point in points]
    return [Bbox.from_extents(x - reach, y - reach, x + reach, y + reach) for x, y in centres]


def put_label(axes: Axes, at: tuple[float, float], text: str, colour: str, taken: list[Bbox]) -> bool:
    """Put a label in the first free place beside its point, and add its box to `taken`.

    Returns False, with no label drawn, if there is no free place: a label over the data would be unreadable.
    """
    room = axes.get_window_extent()
    for x, y, horizontal, vertical in PLACES if text else ():
        note = axes.annotate(
            text, at, (x, y), textcoords="offset points", ha=horizontal, va=vertical, color=colour, fontsize=10.5, zorder=4
        )
        box = note.get_window_extent()
        inside = room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1
        if inside and not any(box.overlaps(other) for other in taken):
            taken.append(box)
            return True
        note.remove()
    return False


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def svg(figure: Figure) -> bytes:
    """Return a figure as an SVG file without a date, so that the same figure gives the same bytes."""
    data = io.BytesIO()
    figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    return data.getvalue()
