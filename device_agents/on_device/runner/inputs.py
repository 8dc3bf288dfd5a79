"""The values that models are run with: the same on every runner, runtime and machine (PROTOCOL.md, "The inputs")."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

MASK = 2**64 - 1
ENTRY, FOOTER = struct.Struct("<QQ"), struct.Struct("<Q8s")
MARK = b"INPUTS 1"
"""What a file ends with that brings values for inputs."""


class Inputs:
    """The values of a model's inputs: those behind the model in its file, else those of the formula."""

    def __init__(self, path: Path, seed: int) -> None:
        self._seed = seed
        _, self._given = split(path)

    def array(self, place: int, shape: Sequence[Any], type_name: Any) -> numpy.ndarray[Any, Any]:
        """The `place`-th input, from 0. ValueError for a dynamic shape, a type that is not numeric, or values of another size."""
        import numpy

        if place not in self._given:
            return input_array(self._seed, place, shape, type_name)
        array = numpy.frombuffer(self._given[place], numpy.dtype(type_name))
        if array.size != math.prod(int(length) for length in shape):
            raise ValueError(f"the file has {array.size} values for input {place} of shape {list(shape)}")
        return array.reshape([int(length) for length in shape])


def split(path: Path) -> tuple[int, Mapping[int, bytes]]:
    """The size of a model in bytes, and the values behind it in its file by the places of its inputs.

    ValueError if the file is damaged.
    """
    with path.open("rb") as file:
        file_bytes = file.seek(0, 2)
        if file_bytes < FOOTER.size:
            return file_bytes, {}
        file.seek(file_bytes - FOOTER.size)
        count, mark = FOOTER.unpack(file.read())
        if mark != MARK:
            return file_bytes, {}
        begin = file_bytes - FOOTER.size - count * ENTRY.size
        if begin < 0:
            raise ValueError(f"the file says that it has values for {count} inputs, which do not fit into it")
        file.seek(begin)
        entries = list(ENTRY.iter_unpack(file.read(count * ENTRY.size)))
        model_bytes = begin - sum(size for _, size in entries)
        if model_bytes < 0:
            raise ValueError("the values of inputs do not fit into the file")
        file.seek(model_bytes)
        return model_bytes, {place: file.read(size) for place, size in entries}


def random_bits(seed: int, place: int, ordinal: Any) -> Any:
    """64 bits for the `ordinal`-th element (from 1) of the `place`-th input (from 0): a whole number, or a uint64 array of them."""
    step = 0xD1342543DE82EF95
    start = (seed * 0x9E3779B97F4A7C15 + (place << 40) * step) & MASK
    z = (ordinal * step + start) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def value_of(bits: Any, kind: str, item_bytes: int) -> Any:
    """An element by its numpy kind and size: in [-1, 1) for floats, 0 or 1 for booleans, 0 to 7 for small whole numbers.

    Large ones may be indices of a table of two rows: they are 0 or 1.
    """
    if kind == "f":
        return (bits >> 40) / 2**23 - 1
    return bits >> (63 if kind == "b" or item_bytes >= 4 else 61)


def input_array(seed: int, place: int, shape: Sequence[Any], type_name: Any) -> numpy.ndarray[Any, Any]:
    """The `place`-th input of a model, from 0. ValueError for a dynamic shape or a type that is not numeric."""
    import numpy

    if not all(hasattr(length, "__index__") and length >= 0 for length in shape):
        raise ValueError(f"input of dynamic shape {list(shape)}")
    dtype = numpy.dtype("str" if type_name == "string" else type_name)
    if dtype.kind not in "fbiu":
        kind = "text" if dtype.kind in "SUO" else f"type {dtype}"
        raise ValueError(f"input of {kind}, which cannot be made up; give the part of the network that works on numbers alone")
    size = math.prod(int(length) for length in shape)
    bits = random_bits(seed, place, numpy.arange(1, size + 1, dtype=numpy.uint64))
    filled: numpy.ndarray[Any, Any] = (
        value_of(bits, dtype.kind, dtype.itemsize).astype(dtype).reshape([int(length) for length in shape])
    )
    return filled
