"""How many values of each layer are not zero: of its weights, and of what it reads and writes on images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from netadapt.pruning.couplings import WEIGHTED
from netadapt.training.trees import Inputs, each_of, split
from profiler.layers.graph import Graph
from profiler.modelled.densities import Densities, LayerDensity

_BATCH = 64
_TAG = "_made_by_layer"


def measured_densities(model: nn.Module, graph: Graph, inputs: Inputs, network: str, data: str) -> Densities:
    """The densities of the graph's nodes, for inputs that are normalised as the network takes them.

    `graph` was traced from the model, whose weights are counted as they are. What a layer writes is counted behind its batch
    normalisation and activation, as accelerators store it. A node without weights reads what others write; what it writes is what
    the next layer with weights reads, or as dense as what it reads itself. Nodes that no module stands for, and their neighbours,
    count as dense.
    """
    counted = _Counted({name: module for name, module in model.named_modules() if isinstance(module, WEIGHTED)})
    training = model.training
    hooks = [hook for name, layer in counted.layers.items() for hook in counted.watch(name, layer)]
    try:
        with torch.no_grad(), counted:
            for batch in split(inputs, _BATCH):
                model.eval()(*batch)
                counted.finish_batch()
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    of_inputs = {name: _share(each) for (name, _), each in zip(graph.inputs, each_of(inputs), strict=True)}
    return Densities(network, data, len(each_of(inputs)[0]), _of_nodes(graph, counted, of_inputs))


def _of_nodes(graph: Graph, counted: _Counted, of_inputs: Mapping[str, float]) -> dict[str, LayerDensity]:
    read = {name: counted.read[name] / counted.read_of[name] for name in counted.read_of}
    readers = {source: read[node.name] for node in reversed(graph.nodes) if node.name in read for source in node.inputs}
    written = dict(of_inputs)
    found: dict[str, LayerDensity] = {}
    for node in graph.nodes:
        if node.name in read:
            output = counted.wrote[node.name] / counted.wrote_of[node.name]
            weight = _share(counted.layers[node.name].get_parameter("weight").detach())
            found[node.name] = LayerDensity(read[node.name], weight, output)
        else:
            sizes = [math.prod(shape) for shape in node.layer.inputs]
            shares = [written.get(source, 1.0) for source in node.inputs[: len(sizes)]]
            total = sum(size for size, _ in zip(sizes, shares, strict=False))
            inputs = sum(size * share for size, share in zip(sizes, shares, strict=False)) / total if total else 1.0
            otherwise = inputs if len(shares) == 1 else 1.0
            found[node.name] = LayerDensity(min(1.0, inputs), 1.0, min(1.0, readers.get(node.name, otherwise)))
        written[node.name] = found[node.name].output
    return found


def _share(values: Tensor) -> float:
    """The share of values that are not zero."""
    return float(torch.count_nonzero(values)) / max(1, values.numel())


class _Counted(TorchFunctionMode):
    """Counts what layers read and write; what they write passes through functions of it alone, such as normalisations and
    activations, before it is stored."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.layers = layers
        self.read, self.read_of = Counter[str](), Counter[str]()
        self.wrote, self.wrote_of = Counter[str](), Counter[str]()
        self._last: dict[str, list[tuple[int, int]]] = {}

    def watch(self, name: str, layer: nn.Module) -> Sequence[Any]:
        """Hooks that count this layer's inputs, and mark its outputs as its own."""

        def before(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.read[name] += int(torch.count_nonzero(inputs[0]))
            self.read_of[name] += inputs[0].numel()

        def after(_layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls = self._last.setdefault(name, [])
            setattr(output, _TAG, (name, len(calls)))
            calls.append((int(torch.count_nonzero(output)), output.numel()))

        return layer.register_forward_pre_hook(before), layer.register_forward_hook(after)

    def finish_batch(self) -> None:
        for name, calls in self._last.items():
            self.wrote[name] += sum(nonzero for nonzero, _ in calls)
            self.wrote_of[name] += sum(size for _, size in calls)
        self._last.clear()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = [each for each in (*args, *(kwargs or {}).values()) if isinstance(each, Tensor) and each.ndim > 1]
        mark = getattr(given[0], _TAG, None) if len(given) == 1 else None  # weights of normalisations have one axis
        made = func(*args, **(kwargs or {}))
        if mark is not None and isinstance(made, Tensor) and made.shape == given[0].shape and made.is_floating_point():
            name, call = mark
            if call < len(calls := self._last.get(name, [])):  # else it was kept from an earlier batch
                setattr(made, _TAG, mark)
                calls[call] = (int(torch.count_nonzero(made)), made.numel())
        return made
