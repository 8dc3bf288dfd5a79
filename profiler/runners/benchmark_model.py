"""TensorFlow Lite's `benchmark_model`, as found in LiteRT's repository under tools/benchmark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from profiler.protocol.job import Job
from profiler.runners.vendor import VendorTool, nanoseconds

STATISTICS = re.compile(r"count=\d+ .*?avg=([0-9.e+]+).*?(?: median=(\d+))?(?: p95=\d+)?\s*$", re.MULTILINE)


class BenchmarkModel(VendorTool):
    name: ClassVar[str] = "benchmark_model"
    runtimes: ClassVar[tuple[str, ...]] = ("litert", "tflite-runtime")
    lost: ClassVar[str] = "no raw samples, whole microseconds, a process for each measurement"

    def _arguments(self, model: str, job: Job) -> Sequence[str]:
        return [
            f"--graph={model}", f"--num_threads={job.threads}", "--use_xnnpack=true", "--warmup_runs=1",
            f"--warmup_min_secs={job.settings.warmup_ms / 1000:g}", f"--num_runs={job.settings.min_samples}",
            f"--min_secs={job.settings.measurement_ms / 1000:g}",
        ]  # fmt: skip

    def _latency_ns(self, text: str) -> int | None:
        """The median of the timed runs; older versions print no median but a mean. The first statistics are the warm-up's."""
        found = STATISTICS.findall(text)
        if len(found) < 2:
            return None
        mean_us, median_us = found[-1]
        return nanoseconds(median_us or mean_us, 1e3)
