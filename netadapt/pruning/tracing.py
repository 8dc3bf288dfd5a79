"""A torch model as a graph of fused groups, as its runtime executes it, with the blocks that can be pruned.

The layers come from the exported ONNX file and the blocks from Torch-Pruning; the names of the modules connect the two. Blocks
that do not pass a trial (netadapt.pruning.trial) are left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

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
    """The graph of a model for inputs of this shape (n, c, h, w), with its blocks. The model itself is not changed.

    Nodes have the paths of their modules as names, and a block has the name of its first layer. `ExportError` if the model cannot
    be exported, `ModelError` if the exported file holds something that cannot be read.
    """
    copy = deepcopy(model).float().cpu().eval()
    for module in copy.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            # the mean of a trained layer is not 0; of a mean of 0 the exporter would make no bias, and layers would lack one
            module.running_mean.fill_(0.5)
    with tempfile.TemporaryDirectory(prefix="trace_") as folder:
        path = Path(folder) / "traced.onnx"
        write_onnx(copy, input_shape, path)
        graph = replace(read_onnx(path), name=name)
    couplings = Couplings(copy, input_shape)
    modules = {module_name for module_name, _ in copy.named_modules()}
    names = {node.name for node in graph.nodes}
    block_of: dict[str, str] = {}
    for node in graph.nodes:  # in the order of execution, so that the first member gives the block its name
        if node.name in modules and node.name not in block_of:
            members = couplings.members(node.name)
            if names.issuperset(members):
                block_of |= dict.fromkeys(members, node.name)
    graph = _with_blocks(graph, block_of)
    graph = _with_only(graph, [block for block, widths in possible_widths(graph, 1).items() if _can_shrink(graph, block, widths)])
    return _with_only(graph, sound_blocks(copy, graph))


def _with_only(graph: Graph, blocks: Collection[str]) -> Graph:
    return _with_blocks(graph, {node.name: node.block for node in graph.nodes if node.block in blocks})


def _with_blocks(graph: Graph, block_of: Mapping[str, str | None]) -> Graph:
    """The graph with the block of each node that is named, and no block for the others."""
    return replace(graph, nodes=tuple(replace(node, block=block_of.get(node.name)) for node in graph.nodes))


def _can_shrink(graph: Graph, block: str, widths: Sequence[int]) -> bool:
    """True if the block can be narrower while the network's outputs and the inputs of its opaque layers keep their shapes."""
    if len(widths) == 1:
        return False
    try:
        smaller = graph.at_widths({block: widths[-2]})
    except (LayerError, PlanError):
        return False
    outputs = [node.layer.output for node in graph.nodes if node.name in graph.outputs]
    return outputs == [node.layer.output for node in smaller.nodes if node.name in graph.outputs]
