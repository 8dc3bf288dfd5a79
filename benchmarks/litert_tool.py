"""LiteRT's own `litert-benchmark`, one process for each call.

The tool rounds every latency it reports to 0.01 ms, which is more than many a layer takes. It is started here with that rounding
taken out and nothing else changed: its module calls `round` on results only, so a `round` of its own that returns the value as it
is leaves the tool's loop, clock, statistics and options as they are.

What it does otherwise (ai-edge-litert 2.3): it runs the CompiledModel interface, with the XNNPACK delegate under its default flags
and one thread unless told otherwise; times each `run_by_name` alone with `time.perf_counter`; fills the inputs once, beforehand,
and never reads the outputs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

UNROUNDED = "import ai_edge_litert.tools.benchmark_litert_model as tool; tool.round = lambda value, digits: value; tool.main()"


def litert_benchmark_median_ms(model: Path, *, runs: int, warmup_runs: int, threads: int) -> float:
    """The median of the tool's `runs` inferences, in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        options = {
            "model": model,
            "num_runs": runs,
            "warmup_runs": warmup_runs,
            "num_threads": threads,
            "result_json": result,
        }
        command = [sys.executable, "-c", UNROUNDED, *(f"--{name}={value}" for name, value in options.items())]
        subprocess.run(command, check=True, capture_output=True)
        return float(json.loads(result.read_text())["latency"]["median_ms"])
