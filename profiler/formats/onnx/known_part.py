"""The part of an ONNX file that onnxruntime knows, where operators of other domains or newer versions keep it from the whole.

It is for listing layers only: a network of which a part cannot run has no latency.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from profiler.errors import ModelError
from profiler.formats.given import Given
from profiler.formats.onnx.complete import completed
from profiler.formats.onnx.library_errors import LIBRARY_ERRORS
from profiler.formats.onnx.reader import graph_of, sort
from profiler.formats.onnx.tensors import open_session, opset_of, shape_of, used_by
from profiler.layers.graph import Graph

_IR_VERSION = 10
"""Newer files are read as files of this version, which has everything that layers are made of."""


def known_part(path: Path, given: Given) -> tuple[Graph, bytes, str] | None:
    """The layers of the part, a file of it, and a sentence on the rest.

    None if the file is refused for another reason, or if nothing of it can be listed.
    """
    try:
        model = onnx.load_model_from_string(completed(path, given))
        newer = _made_older(model)
        sort(model.graph)
        unknown, behind = _cut_down(model)
        if not model.graph.node or not (unknown or newer):
            return None
        data: bytes = model.SerializeToString(deterministic=True)
        graph = graph_of(path.stem, data)
    except (*LIBRARY_ERRORS, ModelError):
        return None
    return graph, data, _sentence(unknown, behind, newer)


def _made_older(model: ModelProto) -> str | None:
    """Make the model one of the newest versions that onnxruntime reads, and say which these are; None if it is not newer."""
    opset, ir_version = opset_of(model), model.ir_version
    newest, newest_ir = opset, ir_version
    while newest > 1 and not _opens(newest, _IR_VERSION):
        newest = min(newest - 1, onnx.defs.onnx_opset_version())
    if not _opens(newest, ir_version):
        newest_ir = _IR_VERSION
    for item in model.opset_import:
        if item.domain in ("", "ai.onnx"):
            item.version = min(item.version, newest)
    model.ir_version = newest_ir
    if (newest, newest_ir) == (opset, ir_version):
        return None
    return f"opset {newest} and IR version {newest_ir}, for it is of opset {opset} and IR version {ir_version}"


def _opens(opset: int, ir_version: int) -> bool:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1,))
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1,))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [value], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    try:
        open_session(model, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    except LIBRARY_ERRORS:
        return False
    return True


def _cut_down(model: ModelProto) -> tuple[list[NodeProto], int]:
    """Leave of the model the nodes that run, and make inputs of what others are declared to make. The others that do not run, and
    how many nodes are behind them."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value for value in (*graph.value_info, *graph.output, *graph.input)}
    weights = {weight.name: weight for weight in graph.initializer}
    available = {value.name for value in graph.input} | weights.keys() | {each.values.name for each in graph.sparse_initializer}
    known: list[NodeProto] = []
    unknown: list[NodeProto] = []
    behind, declared = 0, []
    for node in graph.node:
        if not available.issuperset(used_by(node)):
            behind += 1
        elif _runs(node, model, types, weights):
            known.append(node)
            available.update(node.output)
        else:
            unknown.append(node)
            told = [types[name] for name in node.output if name in types and shape_of(types[name]) is not None]
            declared += told
            available.update(value.name for value in told)
    read = {name for node in known for name in used_by(node)}
    made = dict.fromkeys(name for node in known for name in node.output if name)
    wanted = {value.name for value in graph.output}
    del model.graph.node[:]
    model.graph.node.extend(known)
    model.graph.input.extend(value for value in declared if value.name in read)
    del model.graph.output[:]
    ends = [name for name in made if name not in read or name in wanted]
    model.graph.output.extend(types.get(name, ValueInfoProto(name=name)) for name in ends)
    return unknown, behind


def _runs(node: NodeProto, model: ModelProto, types: dict[str, ValueInfoProto], weights: dict[str, TensorProto]) -> bool:
    """True if onnxruntime opens a model of this node alone."""
    lone = ModelProto()
    lone.CopyFrom(model)
    lone.ClearField("graph")
    lone.graph.name = "alone"
    lone.graph.node.append(node)
    read = used_by(node)
    lone.graph.initializer.extend(weights[name] for name in read if name in weights)
    lone.graph.input.extend(types[name] for name in read if name in types and name not in weights)
    lone.graph.output.extend(ValueInfoProto(name=name) for name in node.output if name)
    try:
        open_session(lone, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    except LIBRARY_ERRORS:
        return False
    return True


def _sentence(unknown: list[NodeProto], behind: int, newer: str | None) -> str:
    runtime = f"onnxruntime {ort.__version__}"
    said = []
    if unknown:
        kinds = dict.fromkeys(f"{node.op_type} of {node.domain}" if node.domain else node.op_type for node in unknown)
        more = f" and {behind} operator{'s' if behind > 1 else ''} behind" if behind else ""
        said.append(f"not listed: {', '.join(kinds)}{more}, which {runtime} cannot run")
    if newer:
        said.append(f"the file is newer than {runtime} and is listed as one of {newer}; export it for that to measure it")
    return "; ".join(said) + ("; such a network cannot be measured" if unknown else "")
