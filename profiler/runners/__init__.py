"""What measures on the device: our runner in Python or in C, or a vendor's tool; and what stands in for one where there is no
device: a simulation, or a recording. A new one is one file and one line in RUNNERS."""

from __future__ import annotations

from profiler.errors import RunnerError
from profiler.runners.benchmark_model import BenchmarkModel
from profiler.runners.native import NativeRunner
from profiler.runners.perf_test import PerfTest
from profiler.runners.program import Runner
from profiler.runners.python import PythonRunner
from profiler.runners.replay import ReplayRunner
from profiler.runners.simulated import SimulatedRunner

__all__ = ["RUNNERS", "Runner", "runner_named"]

RUNNERS: dict[str, type[Runner]] = {
    "python": PythonRunner, "native": NativeRunner, "benchmark_model": BenchmarkModel, "onnxruntime_perf_test": PerfTest,
    "simulated": SimulatedRunner, "replay": ReplayRunner,
}  # fmt: skip


def runner_named(name: str) -> type[Runner]:
    """`RunnerError`, naming those there are, for any other."""
    if name not in RUNNERS:
        raise RunnerError(f"there is no runner {name!r}; known are {', '.join(RUNNERS)}")
    return RUNNERS[name]
