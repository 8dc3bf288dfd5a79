"""What registries list by its address, `module:attribute`, imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def load(address: str) -> Any:
    """The class or function at `module:attribute`. `ModuleNotFoundError` or `AttributeError` if it is not there."""
    module, _, attribute = address.partition(":")
    return getattr(import_module(module), attribute)
