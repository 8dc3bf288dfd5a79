"""Tensors in tuples, lists and mappings, as users' datasets and networks give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from netadapt.input_shapes import InputShape, InputShapes, WholeNumbers

WHOLE_NUMBERS = (torch.int32, torch.int64)
Inputs = Tensor | tuple[Tensor, ...]
"""A batch of inputs of a network: one tensor, or several that it is called with in this order."""


def each_of(inputs: Inputs) -> tuple[Tensor, ...]:
    """The inputs of a batch as a network is called with them."""
    return (inputs,) if isinstance(inputs, Tensor) else inputs


def split(inputs: Inputs, size: int) -> Iterator[tuple[Tensor, ...]]:
    """Batches of this many examples; the last may have fewer."""
    return zip(*(torch.split(each, size) for each in each_of(inputs)), strict=True)


def shape_of(tensor: Tensor) -> InputShape:
    """The shape of an input like this tensor. Integers of 32 and 64 bits are whole numbers, smaller ones are samples or pixels."""
    return WholeNumbers(tensor.shape) if tensor.dtype in WHOLE_NUMBERS else tuple(tensor.shape)


def zeros_of(shapes: InputShapes, count: int | None = None) -> tuple[Tensor, ...]:
    """Inputs of these shapes, of `count` examples where it is given, all zero. A network may change them in place."""
    kinds = [torch.int64 if isinstance(shape, WholeNumbers) else None for shape in shapes]
    sizes = [shape if count is None else (count, *shape[1:]) for shape in shapes]
    return tuple(torch.zeros(size, dtype=kind) for size, kind in zip(sizes, kinds, strict=True))


def random_inputs(shapes: InputShapes, count: int | None = None, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
    """Normally distributed inputs of these shapes, of `count` examples where it is given. Whole numbers are zeros and ones.

    Of these, any network can make something: a mask has no others, and a table has at least two rows.
    """
    sizes = [(count or shape[0], *shape[1:]) for shape in shapes]
    return tuple(
        torch.randint(2, size, generator=generator) if isinstance(shape, WholeNumbers) else torch.randn(size, generator=generator)
        for shape, size in zip(shapes, sizes, strict=True)
    )


def mapped(tree: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with the function of each of its tensors; everything else stays as it is."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {name: mapped(item, function) for name, item in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(mapped(item, function) for item in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(mapped(item, function) for item in tree)
    return tree


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """All tensors in it, in their order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from tensors_in(item)
    elif isinstance(tree, tuple | list):
        for item in tree:
            yield from tensors_in(item)
