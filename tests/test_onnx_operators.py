"""Operators of ONNX files without a model of ours, as TFLite's own: LiteRT computes with them what onnxruntime does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from profiler.errors import ModelError
from profiler.formats.model_file import FORMATS
from profiler.formats.onnx.tensors import channels_last
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec, OpaqueSubgraph, conv2d

Array = NDArray[Any]

IMAGE = (1, 6, 5, 7)
"""An image in the layout of an ONNX file."""
TOKENS = (1, 9, 8)
CHANNELS = np.linspace(0.5, 1.5, 6, dtype=np.float32)
BY_CHANNEL = CHANNELS.reshape(6, 1, 1)
Case = tuple[str, Sequence[tuple[int, ...]], Sequence[Array | None], dict[str, Any]]


def whole(*numbers: int) -> Array:
    return np.array(numbers, dtype=np.int64)


def resize(sizes: Sequence[int], **attributes: Any) -> Case:
    return "Resize", [IMAGE], [None, None, whole(*sizes)], attributes


CASES: dict[str, Case] = {
    "mish": ("Mish", [IMAGE], [], {}),
    "selu": ("Selu", [IMAGE], [], {}),
    "celu": ("Celu", [IMAGE], [], {"alpha": 0.7}),
    "elu with another slope": ("Elu", [IMAGE], [], {"alpha": 0.5}),
    "signs": ("Sign", [IMAGE], [], {}),
    "softsign": ("Softsign", [IMAGE], [], {}),
    "hard sigmoid": ("HardSigmoid", [IMAGE], [], {"alpha": 0.3, "beta": 0.4}),
    "gelu by a tanh": ("Gelu", [IMAGE], [], {"approximate": "tanh"}),
    "a slope for each channel": ("PRelu", [IMAGE], [BY_CHANNEL], {}),
    "a clip": ("Clip", [IMAGE], [np.float32(-0.3), np.float32(0.4)], {}),
    "a clip on one side": ("Clip", [IMAGE], [np.float32(-0.3)], {}),
    "a sum with a constant of each channel": ("Add", [IMAGE], [BY_CHANNEL], {}),
    "a quotient": ("Div", [IMAGE, (1, 6, 1, 1)], [], {}),
    "a square": ("Pow", [IMAGE], [np.float32(2)], {}),
    "layer normalisation": ("LayerNormalization", [TOKENS], [np.linspace(1, 2, 8, dtype=np.float32)] * 2, {"axis": -1}),
    "instance normalisation": ("InstanceNormalization", [IMAGE], [CHANNELS, CHANNELS], {}),
    "group normalisation": ("GroupNormalization", [IMAGE], [CHANNELS, CHANNELS], {"num_groups": 3}),
    "batch normalisation": ("BatchNormalization", [IMAGE], [CHANNELS] * 4, {}),
    "softmax over the height": ("Softmax", [IMAGE], [], {"axis": 2}),
    "softmax of attention": ("Softmax", [(1, 2, 9, 9)], [], {"axis": -1}),
    "logarithms of softmax": ("LogSoftmax", [TOKENS], [], {"axis": 1}),
    "a product of matrices": ("MatMul", [(1, 2, 9, 4), (1, 2, 4, 9)], [], {}),
    "a product of a constant matrix": ("MatMul", [TOKENS], [np.linspace(-1, 1, 40, dtype=np.float32).reshape(8, 5)], {}),
    "a mean over channels": ("ReduceMean", [IMAGE], [whole(1)], {"keepdims": 1}),
    "a maximum over channels": ("ReduceMax", [IMAGE], [whole(1)], {"keepdims": 0}),
    "a norm over the width": ("ReduceL2", [IMAGE], [whole(3)], {}),
    "a concatenation of rows": ("Concat", [IMAGE, (1, 6, 2, 7)], [], {"axis": 2}),
    "every other row": ("Slice", [IMAGE], [whole(1), whole(5), whole(2), whole(2)], {}),
    "columns backwards": ("Slice", [IMAGE], [whole(-1), whole(-100), whole(3), whole(-1)], {}),
    "one token": ("Gather", [TOKENS], [np.array(0, dtype=np.int64)], {"axis": 1}),
    "reflected borders": ("Pad", [IMAGE], [whole(0, 0, 1, 2, 0, 0, 2, 1)], {"mode": "reflect"}),
    "repeated borders": ("Pad", [IMAGE], [whole(0, 0, 1, 2, 0, 0, 2, 1)], {"mode": "edge"}),
    "borders of ones": ("Pad", [IMAGE], [whole(0, 0, 1, 0, 0, 0, 0, 1), np.float32(1)], {}),
    "tokens of pixels": ("Reshape", [IMAGE], [whole(1, 6, 35)], {}),
    "groups of channels": ("Reshape", [IMAGE], [whole(1, 3, 2, 5, 7)], {}),
    "channels interleaved": ("Transpose", [(1, 2, 3, 5, 7)], [], {"perm": [0, 2, 1, 3, 4]}),
    "pixels shuffled": ("DepthToSpace", [(1, 8, 3, 5)], [], {"blocksize": 2, "mode": "CRD"}),
    "blocks to channels": ("SpaceToDepth", [(1, 3, 4, 6)], [], {"blocksize": 2}),
    "bilinear by the corners": resize((1, 6, 10, 9), mode="linear", coordinate_transformation_mode="align_corners"),
    "bicubic": resize((1, 6, 10, 9), mode="cubic", coordinate_transformation_mode="half_pixel", cubic_coeff_a=-0.75),
    "nearest by rounding": resize((1, 6, 10, 9), mode="nearest", coordinate_transformation_mode="half_pixel"),
    "counted borders": ("AveragePool", [IMAGE], [], {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1}),
    "borders that do not count": ("AveragePool", [IMAGE], [], {"kernel_shape": [3, 3], "pads": [1, 0, 1, 2], "strides": [2, 2]}),
    "a maximum with sizes rounded up": (
        "MaxPool", [(1, 6, 8, 8)], [], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    ),
    "a norm of windows": ("LpPool", [IMAGE], [], {"kernel_shape": [2, 2], "strides": [2, 2], "p": 2}),
    "a convolution of a sequence": (
        "Conv", [(1, 4, 11)], [np.linspace(-1, 1, 60, dtype=np.float32).reshape(5, 4, 3)], {"pads": [1, 1], "strides": [2]},
    ),
    "a convolution of a sequence and its activation": (
        "FusedConv", [(1, 4, 11)], [np.linspace(-1, 1, 60, dtype=np.float32).reshape(5, 4, 3)], {"activation": "Relu"},
    ),
    "a transposed convolution of a sequence": (
        "ConvTranspose", [(1, 4, 11)], [np.linspace(-1, 1, 60, dtype=np.float32).reshape(4, 5, 3)],
        {"pads": [1, 0], "strides": [2]},
    ),
    "a transposed convolution of a sequence with its bias": (
        "ConvTranspose", [(1, 4, 11)],
        [np.linspace(-1, 1, 64, dtype=np.float32).reshape(4, 4, 4), np.linspace(0, 1, 4, dtype=np.float32)],
        {"pads": [1, 1], "strides": [2]},
    ),
    "channels repeated over pixels": ("Expand", [(1, 6, 1, 1)], [whole(1, 6, 5, 7)], {}),
    "a mask of attention": ("Where", [(1, 2, 9, 9)], [np.tri(9, dtype=np.bool_).T, np.float32(-1e9)], {}),
    "sums up to each column": ("CumSum", [IMAGE], [whole(3)], {}),
    "sums from behind each channel on": ("CumSum", [IMAGE], [whole(1)], {"exclusive": 1, "reverse": 1}),
    "an einstein sum over channels": ("Einsum", [(1, 6, 9), (1, 6, 9)], [], {"equation": "bcn,bcm->bnm"}),
    "an einstein sum of heads": ("Einsum", [(1, 2, 3, 4), (1, 2, 5, 4)], [], {"equation": "bhid, bhjd -> bjih"}),
    "an einstein sum of weighted experts": ("Einsum", [(1, 3), (1, 3, 5)], [], {"equation": "ne,nec->nc"}),
    "an einstein sum of one tensor": ("Einsum", [IMAGE], [], {"equation": "nchw->nwc"}),
    "the place of the largest": ("ArgMax", [IMAGE], [], {"axis": 1, "keepdims": 0}),
}  # fmt: skip


def extracted(case: Case) -> tuple[LayerSpec, dict[str, bytes]]:
    """The operator as it would be cut out of a file."""
    kind, shapes, constants, attributes = case
    names = [f"input_{place}" for place in range(len(shapes))]
    stored = [f"weight_{place}" for place in range(len(constants))]
    named = ["" if array is None else name for name, array in zip(stored, constants, strict=True)]
    own = "com.microsoft" if kind == "FusedConv" else ""
    read = [*named, *names] if kind == "Where" else [*names, *named]  # its condition comes first
    node = helper.make_node(kind, read, ["output_0"], domain=own or None, **attributes)
    weights = [
        numpy_helper.from_array(np.asarray(array), name) for name, array in zip(stored, constants, strict=True) if array is not None
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in zip(names, shapes, strict=True)]
    made_type = TensorProto.INT64 if kind == "ArgMax" else TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info("output_0", made_type, None)]
    model = helper.make_model(
        helper.make_graph([node], kind, inputs, outputs, weights), opset_imports=[helper.make_opsetid("", 21)]
    )
    model.ir_version = 10
    session = ort.InferenceSession(model.SerializeToString())
    (made,) = session.run(None, {name: np.zeros(shape, np.float32) for name, shape in zip(names, shapes, strict=True)})
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("output_0", made_type, made.shape))
    data = model.SerializeToString(deterministic=True)
    opaque = OpaqueSubgraph(hashlib.sha256(data).hexdigest(), 0, "onnx")
    layer = LayerSpec(kind, tuple(map(channels_last, shapes)), channels_last(made.shape), opaque=opaque)
    return layer, {opaque.digest: data}


def in_litert(data: bytes, inputs: Sequence[Array]) -> list[Array]:
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    for detail, values in zip(interpreter.get_input_details(), inputs, strict=True):
        fitting = values if tuple(detail["shape"]) == values.shape else values.transpose(0, 2, 3, 1)
        interpreter.set_tensor(detail["index"], fitting)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


@pytest.mark.parametrize("name", CASES)
def test_litert_computes_what_onnxruntime_does(name: str) -> None:
    layer, opaques = extracted(CASES[name])
    rng = np.random.default_rng(0)
    inputs = [rng.uniform(0.5, 1.5, shape).astype(np.float32) * rng.choice([-1, 1], shape) for shape in CASES[name][1]]
    inputs = [array.astype(np.float32) for array in inputs]
    graph = Graph.of_layer(layer, opaques)
    (found,) = in_litert(FORMATS["tflite"].write(graph), inputs)
    session = ort.InferenceSession(FORMATS["onnx"].write(graph))
    (wanted,) = session.run(None, {value.name: array for value, array in zip(session.get_inputs(), inputs, strict=True)})
    orders = [order for order in permutations(range(wanted.ndim)) if wanted.transpose(order).shape == found.shape]
    assert any(np.allclose(wanted.transpose(order), found, rtol=1e-4, atol=1e-5) for order in orders)


def between_convolutions(name: str) -> Graph:
    """A network of the operator between two convolutions."""
    layer, opaques = extracted(CASES[name])
    first, last = conv2d((1, 5, 7, 3), 6, 3), conv2d(layer.output, 4, 1)
    nodes = (Node("first", first, ("images",)), Node("operator", layer, ("first",)), Node("last", last, ("operator",)))
    return Graph("network", (("images", (1, 5, 7, 3)),), nodes, ("last",), opaques)


@pytest.mark.parametrize("name", ["mish", "group normalisation", "reflected borders", "bicubic", "softmax over the height"])
def test_an_operator_is_written_inside_a_network(name: str) -> None:
    graph = between_convolutions(name)
    (made,) = in_litert(FORMATS["tflite"].write(graph), [np.ones((1, 5, 7, 3), np.float32)])
    assert made.shape == graph.nodes[-1].layer.output
    assert np.isfinite(made).all()


def test_a_normalisation_between_convolutions_transposes_nothing() -> None:
    data = FORMATS["tflite"].write(between_convolutions("instance normalisation"))
    interpreter = Interpreter(model_content=data, num_threads=1)
    assert "TRANSPOSE" not in [item["op_name"] for item in interpreter._get_ops_details()]


def test_an_operator_that_tflite_lacks_is_refused_in_a_sentence() -> None:
    layer, opaques = extracted(("GridSample", [IMAGE, (1, 5, 7, 2)], [], {}))
    with pytest.raises(ModelError, match=r"GridSample has no form of ours in TFLite, so build for a runtime of ONNX files"):
        FORMATS["tflite"].write(Graph.of_layer(layer, opaques))


def test_an_operator_that_is_used_in_a_way_of_its_own_is_refused_in_a_sentence() -> None:
    layer, opaques = extracted(("MaxPool", [IMAGE], [], {"kernel_shape": [3, 3], "dilations": [2, 2]}))
    with pytest.raises(ModelError, match=r"MaxPool has dilation, which has no form of ours in TFLite"):
        FORMATS["tflite"].write(Graph.of_layer(layer, opaques))
