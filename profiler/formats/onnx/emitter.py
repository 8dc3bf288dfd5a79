"""The parts of an ONNX file that is being written: nodes, and random weights called after their layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from profiler.layers.graph import Graph, Node
from profiler.layers.layer import Shape

Array = npt.NDArray[Any]

ACTIVATIONS: dict[str, tuple[str, dict[str, float], tuple[float, ...]]] = {
    "relu": ("Relu", {}, ()),
    "relu6": ("Clip", {}, (0.0, 6.0)),
    "hard_swish": ("HardSwish", {}, ()),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, ()),  # PyTorch's slope; ONNX's own default is 0.2
    "sigmoid": ("Sigmoid", {}, ()),
}


def in_file(shape: Shape) -> Shape:
    """A channels-last shape as the file has it: figures become NCHW, everything else stays."""
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


class Emitter:
    """Collects nodes and weights, all of them float32; a layer's tensor is called like the layer."""

    reductions: tuple[str, ...] = ("ReduceMean", "ReduceMax")
    """What a global pool to (n, c) may be, as PyTorch exports `mean`; else it is a pool and a Flatten."""

    def __init__(self, graph: Graph, seed: int) -> None:
        self.graph = graph
        self.rng = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self._constants: set[str] = set()

    def inputs(self) -> list[ValueInfoProto]:
        """The graph's, to be asked for before its layers are written."""
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, in_file(shape)) for name, shape in self.graph.inputs]

    def outputs(self) -> list[ValueInfoProto]:
        """The graph's, to be asked for when its layers are written."""
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, in_file(shape)) for name, shape in self.output_shapes()]

    def output_shapes(self) -> list[tuple[str, Shape]]:
        shapes = dict(self.graph.inputs) | {node.name: node.layer.output for node in self.graph.nodes}
        return [(name, shapes[name]) for name in self.graph.outputs]

    def absorbs_activation(self, node: Node) -> bool:
        """Whether no operator is written for the layer's activation."""
        return node.layer.activation == "none"

    def activation(self, kind: str, name: str, source: str, output: str) -> None:
        op_type, attributes, bounds = ACTIVATIONS[kind]
        limits = [self.constant(f"{kind}.{index}", np.float32(bound)) for index, bound in enumerate(bounds)]
        self.node(op_type, [source, *limits], output, name, **attributes)

    def node(self, op_type: str, inputs: list[str], output: str, name: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=name, **attributes))

    def weight(self, node: Node, shape: Shape, fan_in: int, out_axis: int = 0) -> str:
        """The layer's weight; `out_axis` is where it has its output channels."""
        # scaled as He et al. 2015 do, so that values neither vanish into slow denormals nor overflow in deep networks
        values = self.rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2 / fan_in))
        return self.store_weight(node, values, out_axis)

    def bias(self, node: Node) -> list[str]:
        """The layer's bias if it has one, to be asked for after its weight."""
        if not node.layer.bias:
            return []
        values = self.rng.standard_normal(node.layer.out_channels, dtype=np.float32) * np.float32(0.1)
        return [self.store_bias(node, values)]

    def store_weight(self, node: Node, values: Array, out_axis: int) -> str:
        return self.store(f"{node.name}.weight", values)

    def store_bias(self, node: Node, values: Array) -> str:
        return self.store(f"{node.name}.bias", values)

    def constant(self, name: str, value: Array | np.generic) -> str:
        """Stored once, however often it is asked for."""
        if name not in self._constants:
            self._constants.add(name)
            self.store(name, np.asarray(value))
        return name

    def store(self, name: str, values: Array) -> str:
        self.weights.append(numpy_helper.from_array(values, name))
        return name
