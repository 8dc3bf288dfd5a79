"""Tensors in tuples, lists and mappings, as users' datasets and networks give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from netadapt.input_shapes import InputShapes

Inputs = Tensor | tuple[Tensor, ...]
"""A batch of inputs of a network: one tensor, or several that it is called with in this order."""


def each_of(inputs: Inputs) -> tuple[Tensor, ...]:
    """The inputs of a batch as a network is called with them."""
    return (inputs,) if isinstance(inputs, Tensor) else inputs


def split(inputs: Inputs, size: int) -> Iterator[tuple[Tensor, ...]]:
    """Batches of this many examples; the last may have fewer."""
    return zip(*(torch.split(each, size) for each in each_of(inputs)), strict=True)


def zeros_of(shapes: InputShapes) -> tuple[Tensor, ...]:
    """Inputs of these shapes."""
    return tuple(map(torch.zeros, shapes))


def random_inputs(shapes: InputShapes, count: int | None = None, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
    """Normally distributed inputs of these shapes, of `count` examples where it is given."""
    return tuple(torch.randn((count or shape[0], *shape[1:]), generator=generator) for shape in shapes)


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
