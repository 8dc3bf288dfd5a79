"""What onnxruntime in this process executes for a network, asked as the runners ask it (PROTOCOL.md, "The executed graph")."""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from profiler.formats.model_file import FORMATS
from profiler.formats.onnx.executed import read_executed
from profiler.layers.executed_operator import ExecutedOperator
from profiler.layers.graph import Graph
from profiler.layers.layer import conv2d
from profiler.protocol.events import Executed


def answer(file: bytes, *, as_it_is: bool = False, feeds: dict[str, Any] | None = None) -> Executed:
    """One profiled inference of a model file, with inputs of ones unless others are given."""
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if as_it_is else levels.ORT_ENABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "executed.onnx")
        options.optimized_model_filepath, options.profile_file_prefix = str(saved), str(Path(folder, "profile"))
        options.enable_profiling = True
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        types = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
        made_up = {value.name: np.ones(value.shape, types[value.type]) for value in session.get_inputs() if not feeds}
        session.run(None, feeds or made_up)
        events = json.loads(Path(session.end_profiling()).read_text())
        graph = base64.b64encode(saved.read_bytes()).decode()
    operators = tuple(_operator(event) for event in events if event["cat"] == "Node" and event["name"].endswith("_kernel_time"))
    return Executed(model="asked", round=0, operators=operators, inferences_us=(1,), graph=graph)


def _operator(event: dict[str, Any]) -> ExecutedOperator:
    about = event["args"]
    inputs, outputs = (
        tuple({kind: tuple(shape) for kind, shape in item.items()} for item in about[f"{side}_type_shape"])
        for side in ("input", "output")
    )
    return ExecutedOperator(
        name=event["name"].removesuffix("_kernel_time"),
        op=about["op_name"],
        partition=about["provider"],
        index=int(about["node_index"]),
        inputs=inputs,
        outputs=outputs,
        samples_us=(event["dur"],),
    )


def _block() -> int:
    """Channels in a block of the layout on this processor; 1 where there is no such layout."""

    said = answer(FORMATS["onnx"].write(Graph.of_layer(conv2d((1, 8, 8, 3), 4, 3))))
    shape = next(iter(said.operators[0].outputs[0].values()))
    return shape[1] if shape[1] > 4 else 1


BLOCK = _block()


def asked(graph: Graph, *, as_it_is: bool = False) -> Graph:
    """The layers that onnxruntime executes for a network."""
    return read_answer(graph.name, answer(FORMATS["onnx"].write(graph), as_it_is=as_it_is))


def read_answer(name: str, said: Executed) -> Graph:
    """The layers in an answer."""
    return read_executed(name, base64.b64decode(said.graph or ""), said.operators, BLOCK).graph
