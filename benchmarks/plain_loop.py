"""The loop anyone would write around a runtime, in slices: a clock around each inference, for milliseconds every now and then.

    python benchmarks/plain_loop.py MODEL THREADS SLICE_MS EVERY_MS

After each slice it prints the median of its inferences in nanoseconds, until it is ended. It shares no code with the profiler, and
only the number of threads is set. With ONNX Runtime each time includes handing over numpy inputs and filling new numpy outputs;
with LiteRT it is that of `Interpreter.invoke` alone.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

WARMUP_RUNS = 2
LEAST_RUNS = 3


def opened(model: str, threads: int) -> Callable[[], object]:
    """What runs the model once, on random inputs between −1 and 1, or of the whole range of 8-bit integers."""
    rng = np.random.default_rng(0)
    if model.endswith(".onnx"):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        feeds = {value.name: rng.uniform(-1, 1, value.shape).astype(np.float32) for value in session.get_inputs()}
        return lambda: session.run(None, feeds)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model, num_threads=threads)
    interpreter.allocate_tensors()
    for value in interpreter.get_input_details():
        integers = np.issubdtype(value["dtype"], np.integer)
        numbers = rng.integers(0, 128, value["shape"]) if integers else rng.uniform(-1, 1, value["shape"])
        interpreter.set_tensor(value["index"], numbers.astype(value["dtype"]))
    return interpreter.invoke


def main(model: str, threads: int, slice_ms: int, every_ms: int) -> None:
    run = opened(model, threads)
    while True:
        start = time.perf_counter()
        for _ in range(WARMUP_RUNS):
            run()
        times_ns: list[int] = []
        while len(times_ns) < LEAST_RUNS or sum(times_ns) < 1e6 * slice_ms:
            before = time.perf_counter_ns()
            run()
            times_ns.append(time.perf_counter_ns() - before)
        print(statistics.median(times_ns), flush=True)
        time.sleep(max(0.0, start + every_ms / 1000 - time.perf_counter()))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
