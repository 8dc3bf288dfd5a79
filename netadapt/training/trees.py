"""Tensors in tuples, lists and mappings, as users' datasets and networks give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

Inputs = Tensor | tuple[Tensor, ...]
"""A batch of inputs of a network: one tensor, or several that it is called with in this order."""


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
