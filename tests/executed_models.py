"""Small models of which something is known about what a runtime executes for them: in ONNX and TFLite files."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from profiler.formats.tflite.emitter import Emitter

RANDOM = np.random.default_rng(7)


def convolutions() -> bytes:
    """Two convolutions of 32 channels, each with a ReLU; 9216 values in the weights of the second."""
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], name="conv1", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", pads=[1] * 4),
        helper.make_node("Relu", ["c2"], ["scores"], name="relu2"),
    ]
    weights = {"w1": (32, 16, 3, 3), "b1": (32,), "w2": (32, 32, 3, 3), "b2": (32,)}
    return onnx_model(nodes, {"image": (1, 16, 24, 24)}, {"scores": (1, 32, 24, 24)}, weights)


def normalised() -> bytes:
    """A convolution and a BatchNormalization, which ONNX Runtime folds into it."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], name="conv", pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["scores"], name="normalise"),
    ]
    weights = {"w": (16, 16, 3, 3)} | dict.fromkeys(("scale", "shift", "mean", "variance"), (16,))
    return onnx_model(nodes, {"image": (1, 16, 24, 24)}, {"scores": (1, 16, 24, 24)}, weights)


def loop() -> bytes:
    """A Loop of five turns with a Sin and a MatMul in it, between a Relu and a Cos."""
    matrix = (48, 48)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still"]),
            helper.make_node("Sin", ["x"], ["s"], name="inner_sin"),
            helper.make_node("MatMul", ["s", "w"], ["y"], name="inner_product"),
        ],
        "body",
        [value("turn", TensorProto.INT64, []), value("go_on", TensorProto.BOOL, []), value("x", TensorProto.FLOAT, matrix)],
        [value("still", TensorProto.BOOL, []), value("y", TensorProto.FLOAT, matrix)],
    )
    nodes = [
        helper.make_node("Constant", [], ["turns"], value=numpy_helper.from_array(np.array(5))),
        helper.make_node("Constant", [], ["true"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("Relu", ["image"], ["r"], name="first"),
        helper.make_node("Loop", ["turns", "true", "r"], ["l"], body=body, name="turning"),
        helper.make_node("Cos", ["l"], ["scores"], name="last"),
    ]
    return onnx_model(nodes, {"image": matrix}, {"scores": matrix}, {"w": matrix})


def onnx_model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, ...]],
    outputs: dict[str, tuple[int, ...]],
    weights: dict[str, tuple[int, ...]],
) -> bytes:
    """A checked model of float32 tensors, its weights random numbers from 0 to 0.1."""
    values = [numpy_helper.from_array(RANDOM.random(shape, np.float32) / 10, name) for name, shape in weights.items()]
    ends = [[value(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()] for shapes in (inputs, outputs)]
    graph = helper.make_graph(nodes, "network", *ends, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def value(name: str, kind: int, shape: tuple[int, ...] | list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def between_delegates() -> bytes:
    """Two sums on each side of a LOCAL_RESPONSE_NORMALIZATION, which XNNPACK has no kernel for."""
    emitter, shape = Emitter(seed=1), (1, 12, 12, 16)
    constant = emitter.constant("constant", RANDOM.random(shape, np.float32))
    tensors = [emitter.activation(name, shape) for name in ("image", "a", "b", "n", "c", "scores")]
    for place, operator in enumerate(("ADD", "MUL", "LOCAL_RESPONSE_NORMALIZATION", "ADD", "MUL")):
        options = {"ADD": schema.AddOptionsT, "MUL": schema.MulOptionsT}.get(operator, schema.LocalResponseNormalizationOptionsT)()
        if isinstance(options, schema.LocalResponseNormalizationOptionsT):
            options.radius, options.bias, options.alpha, options.beta = 2, 1.0, 1e-4, 0.75
        given = [tensors[place]] if operator.startswith("LOCAL") else [tensors[place], constant]
        emitter.operator(operator, given, tensors[place + 1], options)
    return emitter.finish("network", tensors[:1], tensors[-1:])


def sums(count: int) -> bytes:
    """So many sums of a tensor and a constant, one after the other."""
    emitter, shape = Emitter(seed=1), (1, 2, 2, 4)
    constant = emitter.constant("constant", np.full(shape, 1e-3, np.float32))
    tensors = [emitter.activation(f"t{place}", shape) for place in range(count + 1)]
    for before, after in itertools.pairwise(tensors):
        emitter.operator("ADD", [before, constant], after, schema.AddOptionsT())
    return emitter.finish("network", tensors[:1], tensors[-1:])
