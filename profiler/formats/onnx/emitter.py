"""Collects the nodes and the random weights of an ONNX file that is being written."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from profiler.formats.onnx.tensors import in_file
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import Shape

Array = npt.NDArray[Any]
OPSET = 17
"""The first with every operator that layers need (HardSwish came with 14); all runtimes since 2022 read it."""

ACTIVATIONS: dict[str, tuple[str, dict[str, float], tuple[float, ...]]] = {
    "relu": ("Relu", {}, ()),
    "relu6": ("Clip", {}, (0.0, 6.0)),
    "hard_swish": ("HardSwish", {}, ()),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, ()),  # PyTorch's slope; ONNX's own default is 0.2
    "sigmoid": ("Sigmoid", {}, ()),
    "leaky_relu": ("LeakyRelu", {}, ()),  # its slope is the layer's
    "elu": ("Elu", {}, ()),
    "softplus": ("Softplus", {}, ()),
    "tanh": ("Tanh", {}, ()),
}
"""The operator of each activation that is one, with its attributes and its constant inputs."""


class Emitter:
    """Collects float32 nodes and weights. The output tensor of a layer has the name of the layer."""

    reductions: tuple[str, ...] = ("ReduceMean", "ReduceMax")
    """The operators that may stand for a global pool to (n, c), as PyTorch exports `mean`; otherwise it is a pool and a Flatten."""

    def __init__(self, graph: Graph, seed: int) -> None:
        self.graph = graph
        self.rng = np.random.default_rng(seed)
        self.opset = OPSET
        self.channels_last: set[str] = set()
        """Tensors whose channels are last in the file, too."""
        self.in_files: dict[str, Shape] = {}
        """The shapes of sequences, which layers show with their channels last."""
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self._constants: set[str] = set()

    def inputs(self) -> list[ValueInfoProto]:
        """The declarations of the graph's inputs. Call it before the layers are written."""
        shapes = [(name, self.in_files.get(name, in_file(shape))) for name, shape in self.graph.inputs]
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]

    def outputs(self) -> list[ValueInfoProto]:
        """The declarations of the graph's outputs. Call it after the layers are written."""
        shapes = [(name, shape if name in self.channels_last else in_file(shape)) for name, shape in self.output_shapes()]
        shapes = [(name, self.in_files.get(name, shape)) for name, shape in shapes]
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]

    def output_shapes(self) -> list[tuple[str, Shape]]:
        """The names of the graph's outputs with their channels-last shapes."""
        shapes = dict(self.graph.inputs) | {node.name: node.layer.output for node in self.graph.nodes}
        return [(name, shapes[name]) for name in self.graph.outputs]

    def absorbs_activation(self, node: Node) -> bool:
        """True if the activation of the layer needs no operator of its own."""
        return node.layer.activation == "none"

    def activation(self, kind: str, name: str, source: str, output: str, slope: float) -> None:
        """Add an activation, which reads the tensor `source` and makes the tensor `output`. `slope` is that of a leaky_relu."""
        if kind == "silu":  # opset 17 has no operator for it; onnxruntime makes one of the two
            self.node("Sigmoid", [source], f"{name}.gate", f"{name}.gate")
            self.node("Mul", [source, f"{name}.gate"], output, name)
        elif kind == "gelu":  # nor for x / 2 * (1 + erf(x / sqrt(2))); this is how PyTorch's exporter spells it
            root, one, half = (
                self.constant(f"gelu.{word}", np.float32(value)) for word, value in (("root", 2**0.5), ("one", 1), ("half", 0.5))
            )
            self.node("Div", [source, root], f"{name}.scaled", f"{name}.scaled")
            self.node("Erf", [f"{name}.scaled"], f"{name}.erf", f"{name}.erf")
            self.node("Add", [f"{name}.erf", one], f"{name}.gate", f"{name}.gate")
            self.node("Mul", [source, f"{name}.gate"], f"{name}.double", f"{name}.double")
            self.node("Mul", [f"{name}.double", half], output, name)
        else:
            op_type, attributes, bounds = ACTIVATIONS[kind]
            limits = [self.constant(f"{kind}.{index}", np.float32(bound)) for index, bound in enumerate(bounds)]
            self.node(op_type, [source, *limits], output, name, **attributes, **({"alpha": slope} if kind == "leaky_relu" else {}))

    def node(self, op_type: str, inputs: list[str], output: str, name: str, **attributes: Any) -> None:
        """Add an operator with one output tensor."""
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=name, **attributes))

    def weight(self, node: Node, shape: Shape, fan_in: int, out_axis: int = 0) -> str:
        """Store random weights of the layer and return the tensor's name. `out_axis` is the axis of the output channels."""
        # He et al., 2015 (https://arxiv.org/abs/1502.01852): values neither vanish into slow denormals nor overflow
        values = self.rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2 / fan_in))
        return self.store_weight(node, values, out_axis)

    def bias(self, node: Node) -> list[str]:
        """Store random biases, if the layer has any, and return the tensor's name in a list. Call it after `weight`."""
        if not node.layer.bias:
            return []
        values = self.rng.standard_normal(node.layer.out_channels, dtype=np.float32) * np.float32(0.1)
        return [self.store_bias(node, values)]

    def store_weight(self, node: Node, values: Array, out_axis: int) -> str:
        """Store the weights of a layer in its data type and return the tensor's name."""
        return self.store(f"{node.name}.weight", values)

    def store_bias(self, node: Node, values: Array) -> str:
        """Store the biases of a layer in its data type and return the tensor's name."""
        return self.store(f"{node.name}.bias", values)

    def constant(self, name: str, value: Array | np.generic) -> str:
        """Store a constant, once however often it is used, and return its name."""
        if name not in self._constants:
            self._constants.add(name)
            self.store(name, np.asarray(value))
        return name

    def store(self, name: str, values: Array) -> str:
        """Store the values as they are and return the tensor's name."""
        self.weights.append(numpy_helper.from_array(values, name))
        return name
