"""Model files on disk: each runtime's format, and how graphs get into and out of it. A new format is one line in FORMATS."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.errors import ModelError
from profiler.layers.graph import Graph
from profiler.runtimes import RUNTIMES


@dataclass(frozen=True, slots=True)
class Format:
    """A model file format. Reader and writer are named, not imported: their packages are large and slow to load."""

    name: str
    reader: str
    """module:function from a path to a Graph."""
    writer: str
    """module:function from a Graph and a seed to the bytes of a file."""

    def read(self, path: Path) -> Graph:
        graph: Graph = _load(self.reader)(path)
        return graph

    def write(self, graph: Graph, seed: int = 0) -> bytes:
        """Random weights from the seed; a lone cut-out comes back as it was cut. `ModelError` if the format has no such layer."""
        if len(graph.nodes) == 1 and graph.nodes[0].layer.opaque is not None:
            return graph.opaques[graph.nodes[0].layer.opaque.digest]
        data: bytes = _load(self.writer)(graph, seed)
        return data


FORMATS = {
    "onnx": Format("onnx", "profiler.formats.onnx.reader:read_onnx", "profiler.formats.onnx.writer:write_onnx"),
    "tflite": Format("tflite", "profiler.formats.tflite.reader:read_tflite", "profiler.formats.tflite.writer:write_tflite"),
    "json": Format("json", "profiler.formats.fake:read_fake", "profiler.formats.fake:write_fake"),
}
RUNTIME_FORMATS = {runtime.name: runtime.model_format for runtime in RUNTIMES.values()}
MODEL_SUFFIXES = (".onnx", ".tflite")
"""What a user's model file may end in; the fake runtime's scripts are not among them."""


def _load(name: str) -> Callable[..., Any]:
    module, function = name.split(":")
    loaded: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return loaded


def format_of(path: Path) -> Format:
    """By the file's ending. `ModelError` if there is no such file or no such format."""
    if not path.exists():
        raise ModelError(f"there is no file {path}")
    if path.suffix.lower() not in MODEL_SUFFIXES or not path.is_file():
        raise ModelError(f"{path} is not a model file; {' and '.join(MODEL_SUFFIXES)} files can be read")
    return FORMATS[path.suffix.lstrip(".").lower()]


def default_runtime(path: Path) -> str:
    """The runtime that a model file is for, if none is named."""
    wanted = format_of(path).name
    return next(runtime for runtime, name in RUNTIME_FORMATS.items() if name == wanted)


def read_model(path: Path) -> Graph:
    """The fused groups of any model file we know, as its runtime executes them."""
    return format_of(path).read(path)
