"""Collects the tensors, the operators and the random weights of a .tflite file that is being written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from profiler.formats.tflite.schema import FLOAT32, OPERATOR_NUMBERS, AlignedBuffer, operator_code, pack
from profiler.layers.graph import Node
from profiler.layers.layer import Shape

_TYPES: dict[str, int] = {
    "float32": FLOAT32, "int32": schema.TensorType.INT32, "int8": schema.TensorType.INT8, "bool": schema.TensorType.BOOL,
}  # fmt: skip


class Emitter:
    """Collects tensors and operators with float32 activations and weights. Tensors are known by their numbers."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.tensors: list[Any] = []
        self.buffers = [AlignedBuffer()]  # buffer 0 is empty by convention; it marks tensors that are not constants
        self.operators: list[Any] = []
        self.codes: dict[tuple[str, int], int] = {}

    def activation(self, name: str, shape: Shape) -> int:
        """Add a tensor that is computed, and return its number."""
        return self.tensor(name, shape, FLOAT32)

    def constant(self, name: str, values: NDArray[Any] | Sequence[int]) -> int:
        """Add a constant operand, and return its number; a sequence becomes int32."""
        return self.stored(name, values if isinstance(values, np.ndarray) else np.array(values, np.int32))

    def stored(self, name: str, values: NDArray[Any]) -> int:
        """Add a constant with exactly these values, and return its number."""
        self.buffers.append(AlignedBuffer(np.ascontiguousarray(values).reshape(-1).view(np.uint8)))
        return self.tensor(name, values.shape, _TYPES[values.dtype.name], len(self.buffers) - 1)

    def tensor(self, name: str, shape: Shape, tensor_type: int, buffer: int = 0) -> int:
        """Add a tensor, and return its number. `tensor_type` is a number of schema.TensorType."""
        self.tensors.append(
            schema.TensorT(name=name, shape=np.array(shape, np.int32), type=tensor_type, buffer=buffer, hasRank=True)
        )
        return len(self.tensors) - 1

    def weights(self, node: Node, axes: tuple[int, ...], source: int) -> list[int]:
        """Add random weights and, if there is one, a bias for a layer that reads the tensor `source`; return their numbers.

        `axes` is the order in which TFLite stores the axes of `LayerSpec.weight_shape`.
        """
        layer = node.layer
        shape = layer.weight_shape
        # He et al., 2015 (https://arxiv.org/abs/1502.01852): values neither vanish into slow denormals nor overflow
        values = self._uniform([shape[axis] for axis in axes], math.sqrt(6 / math.prod(shape[1:])))
        bias = None
        if layer.bias or layer.op in ("conv2d", "depthwise_conv2d"):
            # LiteRT does not run a convolution without a bias, so such a convolution gets zeros
            bias = self._uniform([layer.out_channels], 0.1 if layer.bias else 0)
        return self.stored_weights(node, values, bias, axes.index(0), source)

    def stored_weights(
        self, node: Node, weights: NDArray[np.float32], bias: NDArray[np.float32] | None, out_axis: int, source: int
    ) -> list[int]:
        """Store weights, with the output channels on `out_axis`, and the bias if there is one; return their numbers."""
        values = {"weights": weights} if bias is None else {"weights": weights, "bias": bias}
        return [self.stored(f"{node.name}/{word}", array) for word, array in values.items()]

    def _uniform(self, shape: Sequence[int], limit: float) -> NDArray[np.float32]:
        """Random numbers of this shape from -limit to limit."""
        values = self.random.random(shape, dtype=np.float32)
        values -= np.float32(0.5)
        values *= np.float32(2 * limit)
        return values

    def operator(self, name: str, inputs: Sequence[int], output: int, options: Any = None, version: int = 1) -> None:
        """Add an operator; `name` is one of schema.BuiltinOperator, and `options` its table of options."""
        code = self.codes.setdefault((name, version), len(self.codes))
        table = schema.OperatorT(opcodeIndex=code, inputs=np.array(inputs, np.int32), outputs=np.array([output], np.int32))
        if options is not None:
            table.builtinOptions = options
            table.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.operators.append(table)

    def finish(self, name: str, inputs: list[int], outputs: list[int]) -> bytes:
        """The whole file."""
        subgraph = schema.SubGraphT(
            name=name, tensors=self.tensors, inputs=np.array(inputs, np.int32), outputs=np.array(outputs, np.int32),
            operators=self.operators,
        )  # fmt: skip
        codes = [operator_code(OPERATOR_NUMBERS[name], version) for name, version in self.codes]
        return pack(codes, [subgraph], self.buffers)
