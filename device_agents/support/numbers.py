"""Checks of numbers that come from outside: JSON, TOML, a device."""

from __future__ import annotations

import math
from typing import TypeGuard


def is_whole(value: object, least: float = -math.inf, most: float = math.inf) -> TypeGuard[int]:
    """Whether this is a whole number from `least` to `most`. True and False are none, although Python counts with them."""
    return type(value) is int and least <= value <= most


def is_number(value: object, least: float = -math.inf, most: float = math.inf) -> TypeGuard[float]:
    """Whether this is a finite number from `least` to `most` that a float can hold."""
    return isinstance(value, int | float) and type(value) is not bool and least <= value <= most and abs(value) < 1e300
