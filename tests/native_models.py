"""Small real models for the runners, and what the runtimes' Python packages make of them, by the inputs of PROTOCOL.md."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from graphs import mobilenet_v1
from runner_conformance import a_job, model_of

from profiler.formats.model_file import FORMATS
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec, conv2d, depthwise_conv2d, fully_connected
from profiler.runtimes import RUNTIMES

IMAGE = (1, 12, 12, 16)
GRAPHS = {
    "conv": Graph.of_layer(conv2d(IMAGE, 24, 3, activation="relu6")),
    "depthwise": Graph.of_layer(depthwise_conv2d(IMAGE, 3, stride=2)),
    "dense": Graph.of_layer(fully_connected((1, 40), 10)),
    "sum": Graph.of_layer(LayerSpec("add", (IMAGE, IMAGE), IMAGE)),
    "int8": Graph.of_layer(conv2d(IMAGE, 24, 3)).with_precision("int8"),
    "network": mobilenet_v1(0.25, 32, classes=10),
}
Values = np.ndarray[Any, Any]


def write_models(folder: Path, runtime: str, names: Sequence[str] = tuple(GRAPHS)) -> dict[str, Path]:
    kind = RUNTIMES[runtime].model_format
    for name in names:
        (folder / f"{name}.{kind}").write_bytes(FORMATS[kind].write(GRAPHS[name]))
    return {name: folder / f"{name}.{kind}" for name in names}


def run_models(argv: Sequence[str], models: dict[str, Path], runtime: str, libraries: Sequence[str], /, **more: Any) -> list[Any]:
    """The lines of a job that measures each model once; its standard input stays open until it ends."""
    job = a_job({}, [], runtime=runtime, libraries=list(libraries), silence_s=300.0) | {
        "models": [model_of(name, str(path)) for name, path in models.items()],
        "schedule": [{"round": 0, "models": list(models)}],
    }
    path = next(iter(models.values())).parent / "job.json"
    path.write_text(json.dumps(job | more))
    with subprocess.Popen(
        [*argv, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as ran:
        assert ran.stdout is not None and ran.stderr is not None and ran.stdin is not None
        lines = [line for line in ran.stdout if line.startswith("{")]
        stderr = ran.stderr.read()
        ran.stdin.close()
        assert ran.wait() == 0, stderr
    return lines


def python_outputs(runtime: str, path: Path, seed: int) -> list[Values]:
    return _onnxruntime(path, seed) if runtime == "onnxruntime" else _litert(path, seed)


def told_outputs(line: Any) -> list[Values]:
    return [np.array(told["values"], told["type"]).reshape(told["shape"]) for told in line["outputs"]]


def make_input(seed: int, place: int, shape: Sequence[int], kind: Any) -> Values:
    """By the formula of PROTOCOL.md, all elements at once."""
    size = int(np.prod(shape))
    with np.errstate(over="ignore"):
        elements = np.arange(1, size + 1, dtype=np.uint64) + np.uint64(place * 2**40)
        z = np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64) + elements * np.uint64(0xD1342543DE82EF95)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    z = z ^ z >> np.uint64(31)
    floating = np.dtype(kind).kind == "f"
    values = (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1 if floating else z >> np.uint64(61)
    return np.asarray(values).astype(kind).reshape(shape)


def _onnxruntime(path: Path, seed: int) -> list[Values]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int8)": "int8"}
    inputs = {
        value.name: make_input(seed, place, value.shape, kinds[value.type]) for place, value in enumerate(session.get_inputs())
    }
    return list(session.run(None, inputs))


def _litert(path: Path, seed: int) -> list[Values]:
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    for place, detail in enumerate(interpreter.get_input_details()):
        interpreter.set_tensor(detail["index"], make_input(seed, place, [int(size) for size in detail["shape"]], detail["dtype"]))
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
