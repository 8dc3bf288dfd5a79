"""The shape of a network's input."""

from __future__ import annotations

InputShape = tuple[int, int, int, int]
"""(n, c, h, w)"""
