"""The shape of a network's input, for modules that do without torch."""

from __future__ import annotations

InputShape = tuple[int, int, int, int]
"""(n, c, h, w): images, channels, height and width."""
