"""PyTorch's functions that write its operators as those of ONNX, read once in a process.

The exporter reads the sources of all five hundred anew for each export, which takes longer than most exports of ours, and a network
is exported several times before it is trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_KEPT: dict[tuple[object, ...], Any] = {}
"""What was read, by the options that it was read with, such as the version of ONNX."""


@contextmanager
def operators_read_once() -> Iterator[None]:
    """Exports within this share the functions, which none of them changes.

    PyTorch has no option for this; a version that keeps them elsewhere reads them each time.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        own, read = vars(ONNXRegistry)["from_torchlib"], ONNXRegistry.from_torchlib
    except (ImportError, KeyError):
        yield
        return

    def kept(*arguments: object, **options: object) -> Any:
        key = (*arguments, *options.items())
        if key not in _KEPT:
            _KEPT[key] = read(*arguments, **options)
        return _KEPT[key]

    ONNXRegistry.from_torchlib = staticmethod(kept)  # type: ignore[method-assign]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = own  # type: ignore[method-assign]
