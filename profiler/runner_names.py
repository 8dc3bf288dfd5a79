"""What measures on a device, by name: our runners in Python and in C, vendors' tools, and a simulation
and a recording for what only stands for a device.

A new one is a module in profiler.runners and a line in RUNNERS. The classes are named, not imported: the folders below
profiler.runners need the names too, for settings and options.
"""

from __future__ import annotations

from collections.abc import Mapping

RUNNERS: Mapping[str, str] = {
    "python": "profiler.runners.python:PythonRunner",
    "native": "profiler.runners.native:NativeRunner",
    "benchmark_model": "profiler.runners.benchmark_model:BenchmarkModel",
    "onnxruntime_perf_test": "profiler.runners.perf_test:PerfTest",
    "simulated": "profiler.runners.simulated:SimulatedRunner",
    "replay": "profiler.runners.replay:ReplayRunner",
}
"""module:class of each, in the order in which options list them."""
