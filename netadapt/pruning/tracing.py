"""A torch model as a graph of fused groups, as its runtime executes it, with the blocks that can be pruned.

The layers come from the exported ONNX file and the blocks from Torch-Pruning; the names of the modules connect the two. Blocks
that do not pass a trial (netadapt.pruning.trial) are left out, and so are those that an operator without a model of its own cannot
follow (netadapt.pruning.following).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch
from torch import nn

from netadapt.export.files import ExportError, write_onnx
from netadapt.input_shapes import InputShapes
from netadapt.pruning.couplings import NOT_PRUNED, WEIGHTED, Couplings
from netadapt.pruning.following import Narrowed, follow
from netadapt.pruning.sharing import part_again, shared_parameters
from netadapt.pruning.trial import unsound_blocks
from profiler.errors import LayerError, ModelError, PlanError
from profiler.formats.onnx.reader import read_onnx
from profiler.layers.channels import nearest, possible_widths
from profiler.layers.graph import Graph

_SEED = 0
_SHARES = ((0.5, 0.08), (0.75, -0.05))
"""The widths that sizes are learnt at, as a share of the full width, and what neighbouring blocks differ by."""
_NUMBER = re.compile(r"_\d+$")
_NAME_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True, slots=True)
class Traced:
    """A network as a graph, and why layers keep their widths."""

    graph: Graph
    fixed: Mapping[str, str]
    """For the layers with weights that are in no block, what fixes their widths."""


def trace(model: nn.Module, input_shapes: InputShapes, name: str) -> Graph:
    """The graph of a model for inputs of this shape (n, c, h, w), with its blocks. The model itself is not changed.

    Nodes have the paths of their modules as names, and a block has the name of its first layer. `ExportError` if the model cannot
    be exported, `ModelError` if the exported file holds something that cannot be read.
    """
    return trace_with_reasons(model, input_shapes, name).graph


def trace_with_reasons(model: nn.Module, input_shapes: InputShapes, name: str) -> Traced:
    """The same with the reason of every layer that keeps its width."""
    copy = deepcopy(model).float().cpu().eval()
    _make_weights_differ(copy)
    graph = _exported(copy, input_shapes, name)
    couplings = Couplings(deepcopy(copy), input_shapes)
    modules = {module_name for module_name, _ in copy.named_modules()}
    calls: dict[str, list[str]] = {}
    for node in graph.nodes:  # a further call of the same module has its name and a number
        calls.setdefault(node.name if node.name in modules else _NUMBER.sub("", node.name), []).append(node.name)
    # other modules may have several weights of their own, whose operators have the module's name too
    weighted = {layer for layer, module in copy.named_modules() if isinstance(module, WEIGHTED)}
    again = {call for layer in weighted & calls.keys() for call in calls[layer][1:]}
    paths = {module: layer for layer, module in copy.named_modules()}
    sharing = [[paths[owner] for owner, parameter in owners if parameter == "weight"] for owners in shared_parameters(copy)]
    again |= {call for layers in sharing for layer in layers[1:] for call in calls.get(layer, [])}
    graph = replace(graph, nodes=tuple(replace(node, repeats=node.name in again) for node in graph.nodes))
    fixed = {layer: couplings.coupled(layer).reason for layer, module in copy.named_modules() if isinstance(module, WEIGHTED)}
    block_of: dict[str, str] = {}
    parts: dict[str, str] = {}
    for node in graph.nodes:  # in the order of execution, so that the first member gives the block its name
        if node.name in modules and node.name not in block_of | parts:
            found = couplings.coupled(node.name)
            coupled = (*found.members, *found.parts)
            if not all(layer in calls for layer in coupled):
                continue
            if lost := next((layer for layer in coupled if layer in weighted and len(calls[layer]) != couplings.calls(layer)), ""):
                fixed |= dict.fromkeys(
                    found.members, f"{lost} is called more than once, not each time as a layer of the exported file"
                )
                continue
            block_of |= {call: node.name for layer in found.members for call in calls[layer]}
            if found.members:
                # the exporter makes a constant of an embedding that is always read at the same places
                parts |= {call: node.name for layer in (*found.parts, *found.embeddings) for call in calls.get(layer, ())}
    slices = {block: couplings.slices(block) for block in set(block_of.values())}
    # such as a linear layer without a bias that onnxruntime joins with the transposition before it
    joined = [layer for layer, reason in fixed.items() if not reason and layer not in calls]
    fixed |= dict.fromkeys(joined, "onnxruntime joins it with other operators")
    fixed |= {
        layer: f"layers of {type(module).__name__} are not pruned"
        for layer, module in copy.named_modules()
        if isinstance(module, NOT_PRUNED)
    }
    candidates = _with_blocks(graph, block_of, slices)
    graph = _with_only(candidates, [block for block, widths in possible_widths(candidates, 1).items() if len(widths) > 1])
    unsound = unsound_blocks(copy, graph)
    fixed |= unsound
    graph = _with_only(graph, graph.widths.keys() - unsound.keys())
    if parts or any(node.layer.opaque is not None for node in graph.nodes):
        graph, reasons = _followed(copy, graph, input_shapes, parts)
        fixed |= reasons
    shrinking = [block for block, widths in possible_widths(graph, 1).items() if _can_shrink(graph, block, widths)]
    fixed |= dict.fromkeys(set(graph.widths) - set(shrinking), "it makes an output of the network")
    graph = _with_only(graph, shrinking)
    in_blocks = {node.name for node in graph.nodes if (parts | block_of).get(node.name) in graph.widths}
    kept = {layer: fixed.get((parts | block_of).get(layer, layer), "") or fixed[layer] for layer in fixed if layer not in in_blocks}
    return Traced(graph, {layer: reason for layer, reason in kept.items() if reason})


def _make_weights_differ(model: nn.Module) -> None:
    """Give every tensor values of its own, in place.

    The exporter keeps one of several equal tensors, such as biases of zero, and layers would lose their names. Of a batch
    normalisation with a mean of 0 it would make no bias, and layers would lack one.
    """
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.25)


def _exported(model: nn.Module, input_shapes: InputShapes, name: str) -> Graph:
    """The graph of the exported file, whose products are named after their modules.

    Layers get their names from their weights, and so have weights of their own in that file where they share some.
    """
    if shared_parameters(model):
        model = deepcopy(model)
        with torch.random.fork_rng():
            torch.manual_seed(_SEED)
            part_again(shared_parameters(model))
    with tempfile.TemporaryDirectory(prefix="trace_") as folder:
        path = Path(folder) / "traced.onnx"
        write_onnx(model, input_shapes, path)
        proto = onnx.load(path)
        layers = {layer for layer, _ in model.named_modules()}
        paths: dict[nn.Module, str] = {}
        # a module may have several names, of which the file has any one
        first = {layer: paths.setdefault(module, layer) for layer, module in model.named_modules(remove_duplicate=False)}
        weights = {tensor.name for tensor in proto.graph.initializer}
        # an argument of `forward` may have the name of a layer, which must keep it
        others = {tensor.name: f"{tensor.name}_input" for tensor in proto.graph.input if tensor.name in layers}
        for tensor in (*proto.graph.input, *proto.graph.output):
            tensor.name = others.get(tensor.name, tensor.name)
        for tensor in proto.graph.initializer:
            owner, _, own = tensor.name.rpartition(".")
            if (name_of_first := f"{first.get(owner, owner)}.{own}") not in weights and owner in first:
                others[tensor.name] = tensor.name = name_of_first
        for node in proto.graph.node:
            node.input[:] = [others.get(read, read) for read in node.input]
        for number, node in enumerate(proto.graph.node):
            scopes = next((item.value for item in node.metadata_props if item.key == _NAME_SCOPES), "[]")
            path_of_module = [first.get(path, path) for path in scopes.strip("[]").replace("'", "").split(", ")[-2:-1]]
            if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and path_of_module and path_of_module[0]:
                node.name = f"/{path_of_module[0]}/{node.op_type}_{number}"  # the profiler takes the path without its end
        onnx.save(proto, path)
        return replace(read_onnx(path), name=name)


def _followed(model: nn.Module, graph: Graph, input_shapes: InputShapes, parts: Mapping[str, str]) -> tuple[Graph, dict[str, str]]:
    """The graph whose opaque layers follow its blocks, and what fixes the blocks that are none in it."""
    fixed: dict[str, str] = {}
    while graph.widths:
        try:
            done = follow(graph, list(_narrowed(model, graph, input_shapes)), parts)
        except (ExportError, ModelError) as exc:
            return _with_only(graph, []), fixed | dict.fromkeys(graph.widths, f"a narrower network cannot be exported ({exc})")
        if not done.fixed:
            return done.graph, fixed
        fixed |= done.fixed
        graph = _with_only(graph, [block for block in graph.widths if block not in done.fixed])
    return graph, fixed


def _narrowed(model: nn.Module, graph: Graph, input_shapes: InputShapes) -> Iterator[Narrowed]:
    """Narrower versions of the network: every block is narrower, and neighbours by other shares."""
    slices = {node.block: node.slices for node in graph.nodes if node.block is not None}
    for share, step in _SHARES:
        widths = {}
        for place, (block, choices) in enumerate(possible_widths(graph, 1).items()):
            widths[block] = nearest(choices[:-1], choices[-1] * (share + step * (place % 5)))
        narrow = deepcopy(model)
        couplings = Couplings(narrow, input_shapes)
        for block, width in widths.items():
            size, kept = graph.widths[block] // slices[block], width // slices[block]
            couplings.remove(block, [start + at for start in range(0, graph.widths[block], size) for at in range(kept, size)])
        couplings.restore_buffers()
        yield widths, _exported(narrow.requires_grad_(False), input_shapes, graph.name)


def _with_only(graph: Graph, blocks: Collection[str]) -> Graph:
    kept = {node.name: node.block for node in graph.nodes if node.block in blocks}
    return _with_blocks(graph, kept, {node.block: node.slices for node in graph.nodes if node.block is not None})


def _with_blocks(graph: Graph, block_of: Mapping[str, str | None], slices: Mapping[str, int]) -> Graph:
    """The graph with the block of each node that is named, and no block for the others."""
    nodes = []
    for node in graph.nodes:
        block = block_of.get(node.name)
        nodes.append(replace(node, block=block, slices=1 if block is None else slices[block]))
    return replace(graph, nodes=tuple(nodes))


def _can_shrink(graph: Graph, block: str, widths: Sequence[int]) -> bool:
    """True if the block can be narrower while the network's outputs keep their shapes."""
    try:
        smaller = graph.at_widths({block: widths[-2]})
    except (LayerError, PlanError):
        return False
    outputs = [node.layer.output for node in graph.nodes if node.name in graph.outputs]
    return outputs == [node.layer.output for node in smaller.nodes if node.name in graph.outputs]
