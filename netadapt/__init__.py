"""Fits networks into budgets on devices: NetAdapt (Yang et al., ECCV 2018, https://arxiv.org/abs/1804.03230).

The Python interface (netadapt.interface) is imported when one of its names is first used, because PyTorch takes seconds to load.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netadapt.interface import Adaptation, AdaptedStep, AdaptSettings, ToolError, adapt, trace

__all__ = ["AdaptSettings", "Adaptation", "AdaptedStep", "ToolError", "adapt", "trace"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from netadapt import interface

    return getattr(interface, name)
