"""ONNX Runtime's `onnxruntime_perf_test`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from profiler.protocol.job import Job
from profiler.runners.vendor import VendorTool, nanoseconds

MEDIAN = re.compile(r"^P50 Latency: ([0-9.e+-]+) s\s*$", re.MULTILINE)


class PerfTest(VendorTool):
    name: ClassVar[str] = "onnxruntime_perf_test"
    runtimes: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    lost: ClassVar[str] = "no raw samples, six digits, a process for each measurement"
    RUNS: ClassVar[int] = 50
    """It counts runs or whole seconds; a second would be too long for a layer."""

    def _arguments(self, model: str, job: Job) -> Sequence[str]:
        return ["-I", "-m", "times", "-r", str(self.RUNS), "-x", str(job.threads), "-y", "1", "-o", "99", model]

    def _latency_ns(self, text: str) -> int | None:
        found = MEDIAN.findall(text)
        return nanoseconds(found[-1], 1e9) if found else None
