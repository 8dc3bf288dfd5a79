"""`profile layers`: what a model file is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from profiler.cli.options import ModelFile
from profiler.console import Json, count, plain_errors, print_json, print_table, sizes
from profiler.formats.model_file import default_runtime, read_model
from profiler.layers.fusion import fuse_for
from profiler.layers.graph import Graph, unique_layers
from profiler.layers.layer import LayerSpec

COLUMNS = ("layer", "input", "output", "kernel", "stride", "groups", "activation", "MACs", "weights B", "activations B", "times")
NUMBERS = ("groups", "MACs", "weights B", "activations B", "times")


def layers(model: ModelFile, as_json: Json = False) -> None:
    """List the fused groups of a model, as its runtime executes them, and how often each occurs."""
    with plain_errors():
        graph = fuse_for(read_model(model), default_runtime(model))
        if as_json:
            print_json(graph_data(model, graph))
        else:
            print_graph(graph)


def graph_data(model: Path, graph: Graph) -> dict[str, Any]:
    found = unique_layers(graph.layers)
    rows = [layer_data(layer) | {"occurs": times} for layer, times in found.items()]
    return {"model": str(model), "groups": len(graph.nodes), "distinct": len(found), "macs": graph.macs, "layers": rows}


def layer_data(layer: LayerSpec) -> dict[str, Any]:
    return {
        "op": layer.op,
        "inputs": [list(shape) for shape in layer.inputs],
        "output": list(layer.output),
        "kernel": list(layer.kernel),
        "stride": list(layer.stride),
        "dilation": list(layer.dilation),
        "padding": list(layer.padding),
        "groups": layer.groups,
        "activation": layer.activation,
        "precision": layer.dtype,
        "macs": layer.macs,
        "weight_bytes": layer.weight_bytes,
        "activation_bytes": layer.activation_bytes,
        "measured_as": "cut out of the file" if layer.opaque else "made from its shapes",
        "key": layer.key,
    }


def print_graph(graph: Graph) -> None:
    found = unique_layers(graph.layers)
    cells = [
        (
            layer.op + ("" if layer.dtype == "float32" else f" {layer.dtype}"),
            " + ".join(map(sizes, layer.inputs)),
            sizes(layer.output),
            sizes(layer.kernel),
            sizes(layer.stride),
            layer.groups,
            layer.activation,
            count(layer.macs),
            count(layer.weight_bytes),
            count(layer.activation_bytes),
            times,
        )
        for layer, times in found.items()
    ]
    print_table(COLUMNS, cells, right=NUMBERS)
    print(f"{len(graph.nodes)} groups, {len(found)} distinct, {count(graph.macs)} MACs")
