"""The operators of a .tflite file with who makes and who reads each tensor, and what XNNPACK makes of several of them."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from profiler.errors import ModelError
from profiler.formats.tflite.schema import Contents, Operator, Padding

NO_PADDING: Padding = (0, 0, 0, 0)
_ACTIVATIONS: dict[int, str] = {
    number: name.lower() for name, number in vars(schema.ActivationFunctionType).items() if isinstance(number, int)
}
MOST_TABLE_STEPS = 10
"""XNN_MAX_UNARY_FUSION_NODES."""
_EIGHT_BITS = ("int8", "uint8")
_ANY = (*_EIGHT_BITS, "float32")
_UNARY: dict[str, tuple[str, ...]] = {
    "QUANTIZE": _ANY, "DEQUANTIZE": _ANY, "LOGISTIC": _ANY, "TANH": _ANY, "LEAKY_RELU": _ANY,
} | dict.fromkeys(
    ("ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LOG", "NEG", "RELU", "RELU6", "RELU_N1_TO_1", "ROUND",
     "RSQRT", "SIN", "SQRT", "SQUARE"),
    ("float32",),
)  # fmt: skip
"""Operators on single numbers that XNNPACK executes, and the types in which it does."""
_UNARY_WITH_CONSTANT = {"ADD": schema.AddOptionsT, "SUB": schema.SubOptionsT, "MUL": schema.MulOptionsT}
"""Those that do so if their other operand is a single constant, and their options."""


class Network:
    """The operators of the file, with the maker and the readers of each tensor."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self._makers = {tensor: operator for operator in contents.operators for tensor in operator.outputs}
        self._readers = Counter([*contents.outputs, *(t for operator in contents.operators for t in operator.inputs)])
        self._first_readers: dict[int, Operator] = {}
        for operator in contents.operators:
            for tensor in operator.inputs:
                self._first_readers.setdefault(tensor, operator)

    def check_shapes(self) -> None:
        """Raises `ModelError` if a tensor has no fixed shape."""
        contents = self.contents
        used = {*contents.inputs, *contents.outputs}
        for operator in contents.operators:
            used |= {*contents.activations(operator), *operator.outputs}
        for tensor in used:
            signature = contents.tensors[tensor].shapeSignature
            # converters leave the batch size open by default, and it runs as in `shape`; no other open size has a known value
            if min(contents.shape(tensor), default=1) < 1 or (signature is not None and min(signature[1:], default=1) < 0):
                name = contents.name(tensor)
                raise ModelError(f"{contents.label}: {name} has no fixed shape; convert the model again with fixed sizes")

    def lone_maker(self, tensor: int, name: str) -> Operator | None:
        """The operator of this name that makes the tensor, if the tensor has exactly one reader."""
        maker = self._makers.get(tensor)
        return maker if maker is not None and maker.name == name and self._readers[tensor] == 1 else None

    def lookup_tables(self) -> dict[int, tuple[int, ...]]:
        """The numbers of operators that XNNPACK replaces by one table of 256 numbers, by the number of the last one.

        These are operators in a row that map each eight-bit number of one tensor to another, whatever is between; at most ten, with
        activations counted (xnn_subgraph_fuse_unary_quantized_into_lut).
        """
        contents = self.contents
        tables: dict[int, tuple[int, ...]] = {}
        taken: set[int] = set()
        for first in contents.operators:
            chain: list[Operator] = []
            steps = length = 0
            known = set(contents.activations(first))
            following = first if len(known) == 1 and all(contents.dtype(tensor) in _EIGHT_BITS for tensor in known) else None
            while following is not None and following.index not in taken and self._is_unary_of(following, known):
                steps += 1 if following.name in _UNARY or activation(following.options) == "none" else 2
                if steps > MOST_TABLE_STEPS:
                    break
                chain.append(following)
                (made,) = following.outputs
                known.add(made)
                if contents.dtype(made) in _EIGHT_BITS and steps > 1:
                    length = len(chain)
                following = self._first_readers.get(made) if self._readers[made] == 1 else None
            if length > 1:
                numbers = tuple(operator.index for operator in chain[:length])
                tables[numbers[-1]] = numbers
                taken |= set(numbers)
        return tables

    def _is_unary_of(self, operator: Operator, tensors: set[int]) -> bool:
        """True if XNNPACK computes each number of the output from the numbers of these tensors at the same place."""
        contents = self.contents
        read = contents.activations(operator)
        if operator.is_custom or len(operator.outputs) != 1 or not read or not tensors.issuperset(read):
            return False
        shape = contents.shape(operator.outputs[0])
        if any(contents.shape(tensor) != shape for tensor in read):
            return False
        if operator.name in _UNARY:
            allowed = _UNARY[operator.name]
            return all(contents.dtype(tensor) in allowed for tensor in (*read, *operator.outputs))
        if not isinstance(operator.options, _UNARY_WITH_CONSTANT.get(operator.name, ())) or len(operator.inputs) != 2:
            return False
        others = [tensor for tensor in operator.inputs if tensor not in read]
        if any(math.prod(contents.shape(tensor)) != 1 for tensor in others):
            return False
        scales = [contents.scale(tensor) for tensor in (*operator.inputs, *operator.outputs)]
        if not all(scales):
            return not any(scales)
        # the limits of the delegate (xnnpack_delegate.cc), which leaves other operators to the interpreter
        first, second, made = scales
        if operator.name == "MUL":
            return 2**-16 <= first * second / made < 2**8
        return all(2**-10 <= scale / made < 2**8 for scale in (first, second))

    def is_plain(self, operator: Operator, activations: int) -> bool:
        """True if the operator computes in float32 and exactly this number of its operands are not constants."""
        contents = self.contents
        computed = contents.activations(operator)
        constants = [tensor for tensor in operator.inputs if tensor in contents.constants]
        return (
            len(computed) == activations
            and all(contents.dtype(tensor) == "float32" for tensor in (*computed, *operator.outputs))
            and all(
                contents.dtype(tensor) in ("float32", "int32") and contents.tensors[tensor].sparsity is None for tensor in constants
            )
        )

    def is_scalar(self, tensor: int, value: float) -> bool:
        """True if the tensor is a constant of this one number."""
        values = self.contents.values(tensor) if tensor >= 0 else None
        return values is not None and values.size == 1 and bool(np.float32(value) == values.reshape(()))

    def is_quantised(self, operator: Operator) -> bool:
        """True if the operator computes in eight-bit integers only, of one type, as XNNPACK's quantised convolutions do."""
        contents = self.contents
        kinds = {contents.dtype(tensor) for tensor in (operator.inputs[0], operator.inputs[1], *operator.outputs)}
        return operator.inputs[1] in contents.constants and kinds in ({"int8"}, {"uint8"})

    def unpadded(self, tensor: int, filler: float) -> tuple[int, Padding, tuple[int, ...]]:
        """The input of the PAD that makes this tensor, its padding and its number; the tensor itself without such a PAD.

        `filler` is the value with which it pads; a PAD of quantised tensors pads with their zero point, which stands for zero.
        """
        contents = self.contents
        pad = self.lone_maker(tensor, "PAD" if filler == 0 else "PADV2")
        if pad is not None and len(pad.inputs) == (2 if filler == 0 else 3) and contents.activations(pad) == pad.inputs[:1]:
            source, paddings = pad.inputs[:2]
            amounts = contents.integers(paddings) if contents.dtype(paddings) == "int32" else None
            fits = len(contents.shape(source)) == 4 and contents.dtype(source) == contents.dtype(tensor)
            if filler != 0:
                fits = fits and self.is_scalar(pad.inputs[2], filler)
            if fits and amounts is not None and amounts.shape == (4, 2) and not amounts[[0, 3]].any() and amounts.min() >= 0:
                (top, bottom), (left, right) = amounts[1:3].tolist()
                return source, (top, left, bottom, right), (pad.index,)
        return tensor, NO_PADDING, ()


def activation(options: Any) -> str:
    """The activation that these options of an operator say is applied to its output."""
    return _ACTIVATIONS.get(options.fusedActivationFunction, "unknown")
