"""The parts of a .tflite file that is being written: tensors, operators, and random weights called after their layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from profiler.formats.tflite.schema import FLOAT32, OPERATOR_NUMBERS, AlignedBuffer, operator_code, pack
from profiler.layers.graph import Node
from profiler.layers.layer import LayerSpec, Shape

_TYPES: dict[str, int] = {"float32": FLOAT32, "int32": schema.TensorType.INT32, "int8": schema.TensorType.INT8}


class Emitter:
    """Collects tensors and operators, every activation and weight float32."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.tensors: list[Any] = []
        self.buffers = [AlignedBuffer()]  # number 0 is empty by convention: "not a constant"
        self.operators: list[Any] = []
        self.codes: dict[tuple[str, int], int] = {}

    def activation(self, name: str, shape: Shape) -> int:
        return self.tensor(name, shape, FLOAT32)

    def constant(self, name: str, values: NDArray[Any] | Sequence[int]) -> int:
        return self.stored(name, values if isinstance(values, np.ndarray) else np.array(values, np.int32))

    def stored(self, name: str, values: NDArray[Any]) -> int:
        """A constant of just these numbers."""
        self.buffers.append(AlignedBuffer(np.ascontiguousarray(values).reshape(-1).view(np.uint8)))
        return self.tensor(name, values.shape, _TYPES[values.dtype.name], len(self.buffers) - 1)

    def tensor(self, name: str, shape: Shape, kind: int, buffer: int = 0) -> int:
        self.tensors.append(schema.TensorT(name=name, shape=np.array(shape, np.int32), type=kind, buffer=buffer, hasRank=True))
        return len(self.tensors) - 1

    def weights(self, node: Node, axes: tuple[int, ...], source: int) -> list[int]:
        """Weights with these axes of the layer's weight shape, to be multiplied with `source`, and the bias if there is one.

        He-uniform: values neither vanish nor explode in a deep network, and denormal ones, which are slow, stay away.
        """
        shape = node.layer.weight_shape
        values = self._uniform([shape[axis] for axis in axes], math.sqrt(6 / math.prod(shape[1:])))
        return self.stored_weights(node, values, self._bias(node.layer), axes.index(0), source)

    def _bias(self, layer: LayerSpec) -> NDArray[np.float32] | None:
        if not layer.bias and layer.op not in ("conv2d", "depthwise_conv2d"):
            return None
        return self._uniform([layer.out_channels], 0.1 if layer.bias else 0)

    def stored_weights(
        self, node: Node, weights: NDArray[np.float32], bias: NDArray[np.float32] | None, out_axis: int, source: int
    ) -> list[int]:
        """The tensors of weights, which have their output channels on `out_axis`, and of the bias if there is one."""
        values = {"weights": weights} if bias is None else {"weights": weights, "bias": bias}
        return [self.stored(f"{node.name}/{word}", array) for word, array in values.items()]

    def _uniform(self, shape: Sequence[int], limit: float) -> NDArray[np.float32]:
        values = self.random.random(shape, dtype=np.float32)
        values -= np.float32(0.5)
        values *= np.float32(2 * limit)
        return values

    def operator(self, name: str, inputs: Sequence[int], output: int, options: Any = None, version: int = 1) -> None:
        code = self.codes.setdefault((name, version), len(self.codes))
        table = schema.OperatorT(opcodeIndex=code, inputs=np.array(inputs, np.int32), outputs=np.array([output], np.int32))
        if options is not None:
            table.builtinOptions = options
            table.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.operators.append(table)

    def finish(self, name: str, inputs: list[int], outputs: list[int]) -> bytes:
        subgraph = schema.SubGraphT(
            name=name, tensors=self.tensors, inputs=np.array(inputs, np.int32), outputs=np.array(outputs, np.int32),
            operators=self.operators,
        )  # fmt: skip
        codes = [operator_code(OPERATOR_NUMBERS[name], version) for name, version in self.codes]
        return pack(codes, [subgraph], self.buffers)
