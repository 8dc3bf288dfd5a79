"""Branches of a network that can be removed, so that a search chooses its depth as it chooses widths.

NetAdaptV2 merges depth and width: a filter that is removed is bypassed by a channel of the layer's input, and a layer without
filters is the identity. Filters that are only partly bypassed need a concatenation in the deployed network for every such layer.
Ours is the part of it that leaves nothing behind: where a network has a shortcut around some layers itself, as the residuals of
ResNet and MobileNetV2 have, width 0 of these layers removes them and the addition, and the shortcut is all that is left.

A module is such a branch if it returns its input once all its weights are zero. That needs no knowledge of its code, and includes a
ReLU behind the addition, which does not change what another ReLU has made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from netadapt.export.files import ExportError
from netadapt.input_shapes import InputShapes, input_shapes_of
from netadapt.outputs import MISFITS
from netadapt.pruning.couplings import WEIGHTED
from netadapt.pruning.tracing import trace
from netadapt.pruning.trial import randomised
from netadapt.training.trees import random_inputs
from profiler.errors import LayerError, ModelError, PlanError
from profiler.layers.channels import dependent_layers
from profiler.layers.graph import Branch, Graph, Node

_SEED = 0


def with_branches(model: nn.Module, graph: Graph) -> Graph:
    """The graph of a model with the branches of it that can be removed. The model is not changed.

    Each has a block of its own, whose width 0 removes it. The network without them has been traced, and is what the graph predicts.
    """
    shapes = input_shapes_of(graph)
    found = [branches for module in _returning_their_input(model, shapes) if (branches := list(_branches_of(model, graph, module)))]
    if _is_predicted(model, graph, shapes, chosen := [branches[0] for branches in found]):  # the usual case, in one trial
        return replace(graph, branches=_in_order(graph, chosen))
    single = [next((branch for branch in branches if _is_predicted(model, graph, shapes, [branch])), None) for branches in found]
    kept = [branch for branch in single if branch is not None]
    return replace(graph, branches=_in_order(graph, kept) if _is_predicted(model, graph, shapes, kept) else ())


@dataclass(slots=True, eq=False)
class _Call:
    """What a module was given and what it returned in its only call."""

    given: Tensor
    copy: Tensor
    returned: Tensor


def _returning_their_input(model: nn.Module, shapes: InputShapes) -> list[str]:
    """The innermost modules with weights that are called once and return their input once all their weights are zero."""
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        inputs = random_inputs(shapes, 2)
        try:
            model = randomised(model, *inputs)
        except MISFITS:
            return []  # the network takes no batch of two, or fails with random weights
        calls: dict[str, list[_Call]] = {}
        given: dict[str, list[tuple[Tensor, Tensor]]] = {}
        hooks = []
        for name, module in model.named_modules():
            if not name or not any(True for _ in module.parameters()):
                continue

            def before(_module: nn.Module, inputs: tuple[Any, ...], name: str = name) -> None:
                if len(inputs) == 1 and isinstance(inputs[0], Tensor):
                    given.setdefault(name, []).append((inputs[0], inputs[0].clone()))

            def after(_module: nn.Module, inputs: tuple[Any, ...], returned: object, name: str = name) -> None:
                if isinstance(returned, Tensor) and given.get(name):
                    calls.setdefault(name, []).append(_Call(*given[name][-1], returned))

            hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
        with torch.no_grad():
            model(*inputs)
            for hook in hooks:
                hook.remove()
            found: list[str] = []
            for name in sorted(calls, key=lambda name: -name.count(".")):
                if len(calls[name]) == 1 == len(given[name]) and not any(other.startswith(f"{name}.") for other in found):
                    call, zeroed = calls[name][0], deepcopy(model.get_submodule(name))
                    if call.returned.shape != call.copy.shape or not torch.equal(call.given, call.copy) or not call.copy.any():
                        continue
                    for weight in zeroed.parameters():
                        weight.zero_()
                    if torch.equal(zeroed(call.copy.clone()), call.copy):
                        found.append(name)
    return found


def _branches_of(model: nn.Module, graph: Graph, module: str) -> Iterator[Branch]:
    """The parts of the graph that this module may be, the most probable first: an addition, with and without what is behind it."""
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in dict.fromkeys(node.inputs):
            readers.setdefault(name, []).append(node)
    own = {
        f"{module}.{name}".rstrip(".") for name, layer in model.get_submodule(module).named_modules() if isinstance(layer, WEIGHTED)
    } & {node.name for node in graph.nodes}
    layers = {name for name, layer in model.named_modules() if isinstance(layer, WEIGHTED)}
    for place, addition in enumerate(graph.nodes):
        if addition.layer.op != "add" or len(set(addition.inputs)) != 2:
            continue
        for source, branch in (addition.inputs, addition.inputs[::-1]):
            inside = [addition.name]
            for node in reversed(graph.nodes[:place]):
                read_by = readers.get(node.name, [])
                is_inside = node.name != source and node.name not in graph.outputs
                if is_inside and read_by and all(reader.name in inside for reader in read_by):
                    inside.append(node.name)
            if branch not in inside or {name for name in inside if name in layers} != own:
                continue
            nodes = tuple(reversed(inside))
            if not (blocks := _inner_blocks(graph, nodes)):
                continue
            behind = readers.get(addition.name, [])
            is_read_once = len(behind) == 1 and len(behind[0].inputs) == 1 and addition.name not in graph.outputs
            if is_read_once and not behind[0].layer.weight_shape and behind[0].layer.output == addition.layer.output:
                yield Branch(module, blocks, (*nodes, behind[0].name), source)  # an activation behind the addition
            yield Branch(module, blocks, nodes, source)


def _inner_blocks(graph: Graph, nodes: Sequence[str]) -> tuple[str, ...]:
    """The blocks all of whose layers are among these nodes; () if a layer elsewhere depends on one of them."""
    inside = set(nodes)
    elsewhere = {node.block for node in graph.nodes if node.name not in inside}
    found = dict.fromkeys(node.block for node in graph.nodes if node.name in inside and node.block not in (None, *elsewhere))
    blocks = tuple(block for block in found if block is not None)
    depending = {block for layer in dependent_layers(graph) if layer.node.name not in inside for block in layer.blocks}
    return () if depending.intersection(blocks) else blocks


def _is_predicted(model: nn.Module, graph: Graph, shapes: InputShapes, branches: Sequence[Branch]) -> bool:
    """True if the model without these branches has the layers and the blocks that the graph has without them."""
    if not branches:
        return True
    without = deepcopy(model)
    for branch in branches:
        without.set_submodule(branch.name, nn.Identity())
    try:
        predicted = replace(graph, branches=tuple(branches)).at_widths({branch.blocks[0]: 0 for branch in branches})
        found = trace(without, shapes, graph.name)
    except (ExportError, ModelError, PlanError, LayerError):
        return False
    one, two = ([(node.layer, node.block, node.slices) for node in each.nodes] for each in (predicted, found))
    return one == two


def _in_order(graph: Graph, branches: Sequence[Branch]) -> tuple[Branch, ...]:
    places = {node.name: place for place, node in enumerate(graph.nodes)}
    return tuple(sorted(branches, key=lambda branch: places[branch.nodes[-1]]))
