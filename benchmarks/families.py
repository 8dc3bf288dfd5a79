"""What can be pruned of networks of many families, here and with Torch-Pruning's own pruner, as a table.

    python benchmarks/families.py             # all families of tests/all_families.py
    python benchmarks/families.py vit encoder

For each family: the channels of its layers with weights that can be removed (without depthwise ones, whose channels are those
before them, and without the network's outputs); those of the layers that Torch-Pruning's MetaPruner narrows with its defaults, and
whether the network then runs; how many of five networks of random widths run with as many multiply-accumulates as counted; whether
the last of them computes the same exported to ONNX and to TFLite, and whether all of its layers can be written for tables of both;
and the seconds that tracing takes.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Collection
from pathlib import Path

import torch
from torch import nn

from device_agents.support.errors import ToolError
from netadapt.export.files import export_onnx, export_tflite
from netadapt.input_shapes import InputShapes
from netadapt.pruning.counting import count_macs
from netadapt.pruning.couplings import MAKES_AN_OUTPUT
from netadapt.pruning.prune import prune
from netadapt.pruning.tracing import Traced, trace_with_reasons
from profiler.formats.model_file import FORMATS
from profiler.layers.channels import possible_widths

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from all_families import EVERY, shape_of
from torch_pruning_alone import channels

RANDOM_NETWORKS = 5


def main(names: list[str]) -> None:
    warnings.filterwarnings("ignore")
    print(f"{'family':34} {'all':>6} {'ours':>6} {'theirs':>6}  theirs runs  random widths  exports  tables   trace s")
    for name in names or EVERY:
        torch.manual_seed(0)
        model = EVERY[name]().eval()
        started = time.perf_counter()
        try:
            traced = trace_with_reasons(model, (shape_of(name),), name)
        except ToolError as exc:
            print(f"{name:34} {exc}")
            continue
        seconds = time.perf_counter() - started
        outputs = {layer for layer, reason in traced.fixed.items() if reason == MAKES_AN_OUTPUT}
        layers = {layer for layer, _ in model.named_modules()} - outputs
        theirs, runs = torch_pruning_alone(name, outputs)
        every, ours = channels(model, layers), channels(model, layers - set(traced.fixed))
        valid, files, tables = random_networks(model, traced, (shape_of(name),))
        print(f"{name:34} {every:6} {ours:6} {theirs:6}  {runs:11}  {valid} of {RANDOM_NETWORKS}         ", end="")
        print(f"{files:7}  {tables:7}  {seconds:7.1f}", flush=True)


def torch_pruning_alone(name: str, outputs: Collection[str]) -> tuple[int, str]:
    """The channels that Torch-Pruning narrows, and whether the network runs then, in a process that replaces nothing of it."""
    script = Path(__file__).with_name("torch_pruning_alone.py")
    try:
        done = subprocess.run([sys.executable, script, name, *outputs], capture_output=True, text=True, check=True, timeout=120)
    except subprocess.TimeoutExpired:
        return 0, "hangs"
    narrowed, runs = json.loads(done.stdout.splitlines()[-1])
    return int(narrowed), str(runs)


def random_networks(model: nn.Module, traced: Traced, shapes: InputShapes) -> tuple[int, str, str]:
    """How many networks of random widths have the multiply-accumulates of their graph, and what is possible with the last.

    That is: which exports are right, and in which formats its layers can be measured, first of ONNX and then of TFLite.
    """
    rng, valid = random.Random(0), 0
    narrow, widths = model, traced.graph.widths
    for _ in range(RANDOM_NETWORKS):
        widths = {block: rng.choice(choices) for block, choices in possible_widths(traced.graph, 1).items()}
        narrow = prune(model, traced.graph, widths)
        try:
            valid += traced.graph.at_widths(widths).macs == count_macs(narrow, shapes)
        except (RuntimeError, ToolError):
            continue
    exports, tables = [], []
    for export, ending in ((export_onnx, "onnx"), (export_tflite, "tflite")):
        with tempfile.TemporaryDirectory() as folder:
            try:
                export(narrow, shapes, Path(folder) / f"narrow.{ending}")
                exports.append("yes")
            except ToolError:
                exports.append("no")
        try:
            FORMATS[ending].write(traced.graph.at_widths(widths))
            tables.append("yes")
        except ToolError:
            tables.append("no")
    return valid, " ".join(exports), " ".join(tables)


if __name__ == "__main__":
    main(sys.argv[1:])
