"""The loop anyone would write around ONNX Runtime: numpy arrays in, numpy arrays out, a clock around each call.

    python benchmarks/onnx_loop.py MODEL WARMUP_RUNS RUNS THREADS

It prints the nanoseconds of each run as a JSON list and shares no code with the profiler. Only the number of threads is set. Each
time includes handing over the inputs and allocating and filling new output arrays.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import onnxruntime as ort


def main(model: str, warmup_runs: int, runs: int, threads: int) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds = {value.name: rng.uniform(-1, 1, value.shape).astype(np.float32) for value in session.get_inputs()}
    for _ in range(warmup_runs):
        session.run(None, feeds)
    times_ns = []
    for _ in range(runs):
        before = time.perf_counter_ns()
        session.run(None, feeds)
        times_ns.append(time.perf_counter_ns() - before)
    print(json.dumps(times_ns))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
