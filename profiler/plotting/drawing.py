"""How all our figures look: labels at the data instead of legends, colours that everyone can tell apart."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

# Okabe and Ito's palette, made for colour-blind readers
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
DPI = 200  # 1600 pixels across, so that a figure shown 800 wide is sharp on any screen
# where a label may stand beside its point: offset in points, then alignment; the first free place is taken
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
    """A line as so many points that no label fits between two of them."""
    for (x0, y0), (x1, y1) in itertools.pairwise(line):
        yield from ((x0 + (x1 - x0) * k / 60, y0 + (y1 - y0) * k / 60) for k in range(60))
    yield from line[-1:]


def boxes(figure: Figure, axes: Axes, points: Sequence[tuple[float, float]]) -> list[Bbox]:
    """The pixels that these points cover, once the layout stands: labels keep off them."""
    figure.draw_without_rendering()
    reach = 4 * figure.dpi / 72
    centres = [axes.transData.transform(point) for point in points]
    return [Bbox.from_extents(x - reach, y - reach, x + reach, y + reach) for x, y in centres]


def put_label(axes: Axes, at: tuple[float, float], text: str, colour: str, taken: list[Bbox]) -> bool:
    """A label in the first free place beside its point; where there is none it is left out rather than made unreadable."""
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
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def svg(figure: Figure) -> bytes:
    """With text as outlines, so that it looks the same wherever it is opened."""
    data = io.BytesIO()
    figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    return data.getvalue()
