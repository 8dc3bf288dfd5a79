"""Measures layers on devices, builds latency tables from them, and predicts what networks cost.

The Python interface (profiler.interface) is imported when one of its names is first used, because it takes a second to load.
"""

import os
from typing import TYPE_CHECKING, Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime keeps a database in the user's home otherwise, and sends

if TYPE_CHECKING:
    from profiler.interface import LatencyTable, Measured, Prediction, StaleTable, ToolError, benchmark, build, load_table

__all__ = ["LatencyTable", "Measured", "Prediction", "StaleTable", "ToolError", "benchmark", "build", "load_table"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from profiler import interface

    return getattr(interface, name)
