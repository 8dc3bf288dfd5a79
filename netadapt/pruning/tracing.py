"""A torch model as a graph of fused groups, as its runtime will execute it, with the blocks that NetAdapt may prune.

The layers come from the exported ONNX file, the blocks from Torch-Pruning; they meet in the names of the modules. Blocks that do
not stand a trial (netadapt.pruning.trial) are none.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from netadapt.export.files import write_onnx
from netadapt.input_shape import InputShape
from netadapt.pruning.couplings import Couplings
from netadapt.pruning.trial import sound_blocks
from profiler.errors import LayerError, PlanError
from profiler.formats.onnx.reader import read_onnx
from profiler.layers.channels import possible_widths
from profiler.layers.graph import Graph


def trace(model: nn.Module, input_shape: InputShape, name: str) -> Graph:
    """Node names are the paths of the modules; a block is named after its first layer. The model is left as it is."""
    stand_in = _trained_stand_in(model)
    with tempfile.TemporaryDirectory(prefix="trace_") as folder:
        path = Path(folder) / "traced.onnx"
        write_onnx(stand_in, input_shape, path)
        graph = replace(read_onnx(path), name=name)
    couplings = Couplings(stand_in, input_shape)
    modules = {module_name for module_name, _ in stand_in.named_modules()}
    coupled = {node.name: couplings.members(node.name) for node in graph.nodes if node.name in modules}
    found = _with_blocks(graph, coupled)
    return _with_only(found, sound_blocks(stand_in, found))


def _trained_stand_in(model: nn.Module) -> nn.Module:
    """A copy whose batch normalisation has moved from its first values, which would be folded into no bias at all."""
    copy = deepcopy(model).float().cpu().eval()
    with torch.no_grad():
        for module in copy.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.fill_(0.5)
    return copy


def _with_blocks(graph: Graph, coupled: Mapping[str, tuple[str, ...]]) -> Graph:
    names = {node.name for node in graph.nodes}
    block_of: dict[str, str] = {}
    for node in graph.nodes:  # in the order of the network: the first member gives the block its name
        members = coupled.get(node.name, ())
        if node.name not in block_of and names.issuperset(members):
            block_of |= dict.fromkeys(members, node.name)
    everything = _named(graph, block_of)
    possible = possible_widths(everything, 1)
    return _with_only(everything, [block for block, widths in possible.items() if _can_shrink(everything, block, widths)])


def _with_only(graph: Graph, blocks: Collection[str]) -> Graph:
    return _named(graph, {node.name: node.block for node in graph.nodes if node.block in blocks})


def _named(graph: Graph, block_of: Mapping[str, str | None]) -> Graph:
    return replace(graph, nodes=tuple(replace(node, block=block_of.get(node.name)) for node in graph.nodes))


def _can_shrink(graph: Graph, block: str, widths: Sequence[int]) -> bool:
    """Not if the network's own outputs would, nor if it feeds a cut-out, whose weights fix its shapes."""
    if len(widths) == 1:
        return False
    try:
        smaller = graph.at_widths({block: widths[-2]})
    except (LayerError, PlanError):
        return False
    outputs = [node.layer.output for node in graph.nodes if node.name in graph.outputs]
    return outputs == [node.layer.output for node in smaller.nodes if node.name in graph.outputs]
