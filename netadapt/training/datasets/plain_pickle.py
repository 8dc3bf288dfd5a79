"""Pickles of plain data and numpy arrays, such as CIFAR's batches, read without unpickling: nothing in them can be called.

A pickle is a program for a small stack machine. This is such a machine with the few instructions that plain data needs. The two
functions with which numpy rebuilds an array are known by their names and never imported; any other name is an error.
"""

from __future__ import annotations

import math
import pickletools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from netadapt.training.datasets.arrays import Array

_PUSHED = frozenset({
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
})  # fmt: skip
"""Instructions that push their argument."""
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})
_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_FROM_BUFFER = ("numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer")
_NAMES = frozenset({*_RECONSTRUCT, *_FROM_BUFFER, "numpy ndarray", "numpy dtype", "_codecs encode"})
_TYPE = re.compile("[iuf][1248]")
_MARK = object()


@dataclass(slots=True)
class _Name:
    """A name that the pickle would import."""

    text: str


@dataclass(slots=True)
class _Built:
    """An array or a data type while its state is not yet there."""

    name: str
    value: Any = None


def read_plain_pickle(data: bytes) -> dict[Any, Any]:
    """The dictionary that the pickle holds. Its values are arrays of numbers, or texts, bytes, numbers, and lists of such.

    Texts of Python 2 are one character for each byte. `ValueError` for a pickle of anything else, and for a damaged one.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(data):
            _step(opcode.name, argument, stack, memo)
        found = stack.pop()
        # lists are not searched for arrays: one that holds the same list many times, many levels deep, would never end
        return {key: value.value if isinstance(value, _Built) else value for key, value in found.items()}
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError, UnicodeError) as exc:
        raise ValueError("it is damaged") from exc


def _step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    if name in _PUSHED:
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in ("MARK", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
        stack.append({"MARK": lambda: _MARK, "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
    elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
        memo[int(argument)] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[int(argument)])
    elif name == "POP":
        stack.pop()
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif name in ("TUPLE", "LIST", "DICT", "APPENDS", "SETITEMS"):
        items = _above_mark(stack)
        if name in ("TUPLE", "LIST"):
            stack.append(tuple(items) if name == "TUPLE" else items)
        elif name == "APPENDS":
            stack[-1].extend(items)
        else:
            pairs = zip(items[::2], items[1::2], strict=True)
            if name == "DICT":
                stack.append(dict(pairs))
            else:
                stack[-1].update(pairs)
    elif name == "APPEND":
        item = stack.pop()
        stack[-1].append(item)
    elif name == "SETITEM":
        key, value = stack[-2:]
        stack[-3][key] = value
        del stack[-2:]
    elif name in ("GLOBAL", "STACK_GLOBAL"):
        if name == "STACK_GLOBAL":
            argument = " ".join(stack[-2:])
            del stack[-2:]
        if argument not in _NAMES:
            raise ValueError(f"it holds more than plain data: {argument.replace(' ', '.')[:80]}")
        stack.append(_Name(argument))
    elif name == "REDUCE":
        arguments, function = stack.pop(), stack.pop()
        stack.append(_called(function, arguments))
    elif name == "BUILD":
        state = stack.pop()
        built = stack[-1]
        if built.name != "numpy dtype":
            built.value = _array(state)
        elif state[1] == ">":  # all else in a data type's state is in its name
            built.value = built.value.newbyteorder(">")
    elif name not in _IGNORED:
        raise ValueError(f"it holds more than plain data: the instruction {name}")


def _above_mark(stack: list[Any]) -> list[Any]:
    """The items since the last mark, taken off with it."""
    place = next(place for place in reversed(range(-1, len(stack))) if place < 0 or stack[place] is _MARK)
    if place < 0:
        raise ValueError("it is damaged")
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _called(function: Any, arguments: Any) -> Any:
    """What a call of one of the known names stands for."""
    name = function.text
    if name == "_codecs encode":  # bytes, as Python 3 writes them for Python 2
        text, encoding = arguments
        if encoding != "latin1":
            raise ValueError("it is damaged")
        return text.encode("latin1")
    if name == "numpy dtype" and _TYPE.fullmatch(arguments[0]):
        return _Built(name, np.dtype(arguments[0]))
    if name in _RECONSTRUCT:
        return _Built(name)
    if name in _FROM_BUFFER:
        buffer, kind, shape, order = arguments
        # a number would be that many bytes
        raw = bytes(buffer) if isinstance(buffer, bytes | bytearray) else None
        return _Built(name, _array((1, shape, kind, order == "F", raw)))
    raise ValueError(f"it holds more than plain data: a call of {name.replace(' ', '.')} that does not make an array of numbers")


def _array(state: Any) -> Array:
    """The array of the state that numpy has stored: a version, the shape, the data type, the order of the axes and the bytes."""
    _, shape, kind, fortran, data = state
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(raw, bytes) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError("it is damaged")
    if math.prod(shape) * kind.value.itemsize != len(raw):
        raise ValueError("it is damaged: an array has not as many bytes as its shape needs")
    return np.frombuffer(raw, kind.value).reshape(shape, order="F" if fortran else "C")
