"""`profile layers`: what model files are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from device_agents.device_lock import waiting_by
from profiler.cli.branches import warn_of_branches
from profiler.cli.options import (
    ADD_WAIT,
    Device,
    ModelFiles,
    Oversubscribe,
    Python,
    Runner,
    RuntimeOfFile,
    Shapes,
    Threads,
    Values,
    Wait,
    patience_s,
)
from profiler.cli.several import each, tell
from profiler.console import Json, count, plain_errors, print_table, sizes, terminable
from profiler.formats.given import given_inputs
from profiler.formats.model_file import default_runtime
from profiler.layers.graph import Graph, unique_layers
from profiler.layers.layer import LayerSpec
from profiler.measure.executed import AskedFile, ask_file
from profiler.progress import bar
from profiler.protocol.settings import Target

COLUMNS = (
    "layer",
    "input",
    "output",
    "kernel",
    "stride",
    "groups",
    "activation",
    "layout",
    "MACs",
    "weights B",
    "activations B",
    "times",
)
NUMBERS = ("groups", "MACs", "weights B", "activations B", "times")


def layers(
    models: ModelFiles,
    runtime: RuntimeOfFile = None,
    device: Device = "local",
    threads: Threads = 1,
    oversubscribe: Oversubscribe = False,
    python: Python = None,
    runner: Runner = None,
    wait: Wait = False,
    shape: Shapes = [],  # noqa: B006
    input_: Values = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """List the layers that a device's runtime executes for models, and how often each occurs. The runtime itself is asked."""
    with plain_errors(), terminable(), waiting_by(ADD_WAIT):
        given = given_inputs(shape, input_)
        with bar() as progress:

            def ask(model: Path) -> AskedFile:
                target = Target(device, runtime or default_runtime(model), threads, python, runner, oversubscribe)
                return ask_file(model, target, given, progress=progress, wait_s=patience_s(wait))

            found = each(models, ask)
        warn_of_branches([path for path, asked in found.items() if isinstance(asked, AskedFile)], given)
        tell(found, as_json, graph_data, print_asked)


def print_asked(asked: AskedFile, among_several: bool) -> None:
    if among_several:
        print(f"{asked.path}:")
    print_graph(asked.graph)
    print(asked.sentence)
    if asked.remainder:
        print(asked.remainder)


def graph_data(asked: AskedFile) -> dict[str, Any]:
    graph = asked.graph
    found = unique_layers(graph.layers)
    rows = [layer_data(layer) | {"occurs": times} for layer, times in found.items()]
    about = {
        "model": str(asked.path),
        "device": asked.target.device,
        "runtime": asked.target.runtime,
        "from_runtime": asked.from_runtime,
    }
    if asked.remainder:
        about["remainder"] = asked.remainder
    return about | {"groups": len(graph.nodes), "distinct": len(found), "macs": graph.macs, "layers": rows}


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
        "layout": layer.layout or "plain",
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
            layer.layout or "plain",
            count(layer.macs),
            count(layer.weight_bytes),
            count(layer.activation_bytes),
            times,
        )
        for layer, times in found.items()
    ]
    print_table(COLUMNS, cells, right=NUMBERS)
    print(f"{len(graph.nodes)} groups, {len(found)} distinct, {count(graph.macs)} MACs")
