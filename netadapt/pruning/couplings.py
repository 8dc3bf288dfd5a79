"""Coupled channels of a model, found by Torch-Pruning's dependency graph (https://github.com/VainF/Torch-Pruning).

Removing an output channel of a convolution also removes it from the batch normalisation and the depthwise convolution that follow,
from the inputs of the next layers and, across a residual addition, from every layer that is added. The gate of a squeeze-excite
block couples the layers that it multiplies in the same way; a gate of one channel does not. Layers that are concatenated keep
separate widths.

A grouped convolution keeps its number of groups, so every group has to lose the same number of channels. The channels that it
reads or writes are divided into equal slices, and a channel is removed from all slices together, at the same position in each
(netadapt.pruning.grouping). So are the channels that a group normalisation or a split into equal parts reads, those of queries,
keys and values, which keep their number of heads, and those of a layer that a concatenation or a part of another layer is added
to. The number of slices is the least with which all layers of a block lose the same share.

Some layers keep their widths, because one width would not determine what becomes of them: grouped convolutions that make one
channel of several, and layers whose channels are halved and shuffled. A layer that is called several times couples all that it
reads, and all that it makes, and so do layers that share a weight (netadapt.pruning.sharing).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch_pruning import ops
from torch_pruning.ops import OPTYPE

from netadapt.input_shapes import InputShapes
from netadapt.outputs import forget_graph, outputs_of_all_layers
from netadapt.pruning import axes, grouping, places
from netadapt.pruning.axes import map_axes, summed_positions
from netadapt.pruning.buffers import buffers_of_channels
from netadapt.pruning.grouping import couple_groups, divides, is_depthwise
from netadapt.pruning.places import Shapes, couple_places, note_parts, part_scores, part_what_is_broadcast
from netadapt.pruning.sharing import couple_shared, share_again, shared_parameters
from netadapt.training.trees import zeros_of

WEIGHTED = (_ConvNd, nn.Linear)
"""The classes of layers that can make the channels of a block."""
NOT_PRUNED = (nn.RNNBase, nn.Bilinear)
"""Classes of layers with weights that cannot."""
_FOLLOWERS = (
    OPTYPE.BN, OPTYPE.PRELU, OPTYPE.LN, OPTYPE.GN, OPTYPE.IN, OPTYPE.DEPTHWISE_CONV, OPTYPE.ELEMENTWISE, OPTYPE.CONCAT,
    OPTYPE.RESHAPE, OPTYPE.PARAMETER, OPTYPE.EXPAND, OPTYPE.SLICE, OPTYPE.SPLIT,
    OPTYPE.UNBIND,
)  # fmt: skip
"""The operations that pass channels on, whose number may be another behind a split or a slice."""
_MOST_VISITS = 100
"""The most sets of channels that pass from one node to the next; a network of two branches that share their layers has 37."""
_MOST_TIMES = 32
"""How often a channel may stand in one such set on average; each time around a circle it stands there more often."""
MAKES_AN_OUTPUT = "it makes an output of the network"


@dataclass(frozen=True, slots=True)
class Coupled:
    """The layers with weights whose output channels are coupled to those of one of them."""

    members: tuple[str, ...] = ()
    """Those with as many channels, itself included; () if it cannot be pruned."""
    parts: tuple[str, ...] = ()
    """Those with fewer channels, each of which is coupled to one or more of the members', and those with more, behind a padding."""
    embeddings: tuple[str, ...] = ()
    """The embeddings whose columns are the members' channels, because their rows are added to them."""
    reason: str = ""
    """What keeps this layer at its width; empty if it can be pruned, or has the width of the layer before it."""


class Couplings:
    """The coupled channels of one model, whose channels can be removed in place."""

    def __init__(self, model: nn.Module, input_shapes: InputShapes) -> None:
        """The model is set to evaluation, requires gradients and has parameters as some buffers from now on, so pass a copy."""
        self._modules = dict(model.named_modules())
        self._names = {module: name for name, module in self._modules.items()}
        self._parameters = {parameter: name for name, parameter in model.named_parameters()}
        self._shared = shared_parameters(model)
        calls: dict[bool, Counter[nn.Module]] = {False: Counter(), True: Counter()}
        self._outputs: list[Any] = []
        made: dict[nn.Module, list[Any]] = {}  # by each call, as nodes of autograd's graph

        def count_call(module: nn.Module, _inputs: Any, output: Any) -> None:
            if torch.is_grad_enabled():  # else it is only seen whether training runs other layers
                calls[model.training][module] += 1
                made.setdefault(module, []).append(getattr(output, "grad_fn", None))

        def run(traced: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
            outputs = [output for output in outputs_of_all_layers(traced, *inputs) if output.requires_grad]
            self._outputs = [output.grad_fn for output in outputs]
            return outputs

        model.eval().requires_grad_(True)  # Torch-Pruning reads the graph from autograd's
        hooks = [module.register_forward_hook(count_call) for module in self._modules.values()]
        self._buffers = buffers_of_channels(model)
        try:
            shapes = self._trace(model, input_shapes, run)
        except RuntimeError:
            if not self._buffers:
                raise
            self.restore_buffers()  # the network may change them in place, which no parameter allows
            self._buffers = []
            for counted in (calls[False], calls[True], made):
                counted.clear()
            shapes = self._trace(model, input_shapes, run)
        for hook in hooks:
            hook.remove()
        for node in self._graph.module2node.values():
            node.calls = made.get(node.module, [node.grad_fn])
        self._shapes = shapes.found
        self._products = shapes.products
        note_parts(self._graph, shapes.found)
        part_what_is_broadcast(self._graph, shapes.found, {buffer.values for buffer in self._buffers})
        part_scores(self._graph)
        map_axes(self._graph)
        couple_groups(self._graph, shapes.found)
        couple_places(self._graph, shapes.placed)
        self._fixed_by = couple_shared(self._graph, self._shared)
        forget_graph(model)
        self._calls = calls[False] | calls[True]  # of a layer that both run, the larger number

    def _trace(self, model: nn.Module, input_shapes: InputShapes, run: Callable[..., list[Tensor]]) -> Shapes:
        """Let Torch-Pruning trace the model, and return the shapes of all tensors."""
        for buffer in self._buffers:
            buffer.hold(nn.Parameter(buffer.values))
        followed = {buffer.values: buffer for buffer in self._buffers}
        shapes = Shapes()
        with torch.enable_grad(), shapes:
            self._graph = _Graph().build_dependency(
                model, zeros_of(input_shapes), forward_fn=run, verbose=False,
                unwrapped_parameters=[(values, buffer.axis) for values, buffer in followed.items()],
            )  # fmt: skip
        self._graph._param_to_name |= {values: buffer.path for values, buffer in followed.items()}
        return shapes

    def blocks(self) -> list[tuple[str, ...]]:
        """The members of every coupling group that can be pruned, in the order in which the network calls their first layers."""
        found: list[tuple[str, ...]] = []
        known: set[str] = set()
        for module in self._calls:
            name = self._names[module]
            if name not in known and (coupled := self.coupled(name)).members:
                found.append(coupled.members)
                known |= {*coupled.members, *coupled.parts}
        return found

    def coupled(self, name: str) -> Coupled:
        """What is coupled to the output channels of this layer, or why it keeps its width."""
        layer = self._modules[name]
        is_used = layer in self._graph.module2node  # a network may own layers that it never calls
        if not isinstance(layer, WEIGHTED) or not is_used or is_depthwise(layer):
            # a depthwise convolution has the width of the one before it
            return Coupled(reason="" if is_used else "the network never calls it")
        width = self._graph.get_out_channels(layer)
        as_wide: dict[str, Any] = {}
        parts, embeddings = [], []
        try:
            group = self._group(layer, list(range(width)))
        except _Circles as exc:
            return Coupled(reason=f"its channels go in circles through {exc}")
        if any(self._makes_an_output(dependency) for dependency, _ in group):
            return Coupled(reason=MAKES_AN_OUTPUT)
        is_padded = any(type(dependency.target.grad_fn).__name__.startswith("ConstantPad") for dependency, _ in group)
        for item in group.items:
            dependency, indices = item
            module, kind = dependency.target.module, dependency.target.type
            called = self._names.get(module) or name
            writes = self._graph.is_out_channel_pruning_fn(dependency.handler)
            if other := self._fixed_by.get((module, dependency.handler)):
                return Coupled(reason=f"{called} shares weights with {self._names[other]}, where they are no channels")
            if writes and _makes_one_of_each_group(module):
                return Coupled(reason=f"{called} makes one channel of each of its groups")
            if kind == OPTYPE.MHA:
                as_wide[f"{called}.out_proj"] = item
                parts.append(called)  # it makes queries, keys and values
            elif kind not in (OPTYPE.CONV, OPTYPE.LINEAR):
                if kind == OPTYPE.EMBED and len(indices) == width == module.embedding_dim:
                    embeddings.append(called)
                    continue
                if kind not in _FOLLOWERS:
                    return Coupled(reason=f"its channels go through {_kind_of(dependency.target)}")
                if kind == OPTYPE.PARAMETER and max(indices) >= module.shape[dependency.target.pruning_dim]:
                    return Coupled(reason=f"{self._parameters.get(module, 'a parameter')} has other numbers than channels")
                if kind == OPTYPE.GN and not indices == list(range(width)) == list(range(module.num_channels)):
                    return Coupled(reason=f"{called} normalises groups of a concatenation")
            elif writes and not is_depthwise(module):
                count = self._graph.get_out_channels(module)
                if len(indices) != count and not (is_padded and indices == list(range(width)) and count > width):
                    return Coupled(reason=f"its channels are only some of those that are added to {called}")
                if count == width:
                    as_wide[self._names[module]] = item
                else:
                    parts.append(self._names[module])
        slices = self._slices(layer, group, parts)
        if slices is None:
            return Coupled(reason="its channels would not go in equal parts")
        # behind a shuffle, for one, others go than those of the same places
        moved = {
            called
            for called, item in as_wide.items()
            if any((one - other) % (width // slices) for one, other in zip(item.idxs, item.root_idxs, strict=True))
        }
        members = [called for called in as_wide if called not in moved]
        return Coupled(tuple(members), (*parts, *moved), tuple(embeddings))

    def _makes_an_output(self, dependency: Any) -> bool:
        """True if what goes is an output of the network, or of a layer that makes one in one of its calls."""
        node = dependency.target
        makes = isinstance(node.module, WEIGHTED) and self._graph.is_out_channel_pruning_fn(dependency.handler)
        return node.type == OPTYPE.OUTPUT or (makes and any(made in self._outputs for made in node.calls))

    def calls(self, name: str) -> int:
        """How often the network uses this layer in one inference; one inside an attention, which does not call it, with that."""
        attention = self._modules[name.removesuffix(".out_proj")]
        layer = attention if isinstance(attention, nn.MultiheadAttention) else self._modules[name]
        return max(1, self._calls[layer])

    def slices(self, name: str) -> int:
        """The number of equal slices of this layer's channels, from which the same positions are removed; 1 for most layers."""
        layer = self._modules[name]
        group = self._group(layer, list(range(self._graph.get_out_channels(layer))))
        return self._slices(layer, group, self.coupled(name).parts) or 1

    def _slices(self, layer: nn.Module, group: Any, parts: Sequence[str]) -> int | None:
        """The same for a layer whose group has these parts; None if other channels would have to go together."""
        modules = [dependency.target.module for dependency, _ in group]
        splits = [module.split_sizes for module in modules if isinstance(module, ops._SplitOp) and module.split_sizes]
        halves = [len(sizes) for sizes in splits if len(set(sizes)) == 1]
        width = self._graph.get_out_channels(layer)
        counts = [self._graph.get_out_channels(self._modules[part]) for part in parts]
        narrower = [count for count in counts if count < width]  # others are padded, by channels that stay, or have several of each
        norms = [module.num_groups for module in modules if isinstance(module, nn.GroupNorm)]
        heads = [module.num_heads for module in modules if isinstance(module, nn.MultiheadAttention)]
        heads += self._heads(group)
        in_groups = []
        for dependency, _ in group:
            module = dependency.target.module
            if isinstance(module, _ConvNd) and module.groups > 1 and not is_depthwise(module):
                makes = self._graph.is_out_channel_pruning_fn(dependency.handler)
                in_groups.append((module.out_channels if makes else module.in_channels) // module.groups)
        positions = width // math.gcd(width, *self._going_with(layer, 0))
        least = math.lcm(*halves, *norms, *heads, positions, width // math.gcd(width, *narrower, *in_groups))
        if not any(divides(dependency.target) for dependency, _ in group):
            return least
        divisors = (slices for slices in range(least, width, least) if width % slices == 0)
        return next((slices for slices in divisors if self._go_alike(layer, group, width, slices)), None)

    def _go_alike(self, layer: nn.Module, group: Any, width: int, slices: int) -> bool:
        """True if of each layer in the group the same share goes when the first, or the last, channel of every slice goes."""
        every = {(dependency.target, dependency.handler): len(indices) for dependency, indices in group}
        size = width // slices
        return all(
            len(indices) * size == every[dependency.target, dependency.handler]
            for place in {0, size - 1}
            for dependency, indices in self._group(layer, list(range(place, width, size)))
        )

    def _going_with(self, layer: nn.Module, channel: int) -> set[int]:
        """The channels of this layer that go when one of them does, if channels stand on several axes: one of each head."""
        group = self._group(layer, [channel])
        if not any(dependency.target in self._graph.nodes_with_axes for dependency, _ in group):
            return {channel}
        cuts = [item for item in group if item.dep.target.module is layer]
        return {at for item in cuts if self._graph.is_out_channel_pruning_fn(item.dep.handler) for at in item.idxs}

    def _heads(self, group: Any) -> list[int]:
        """Into how many slices reshapes divide all channels of a group that attention reads: heads, of queries, keys and values."""
        found = []
        for dependency, indices in group if _has_attention(group) else ():
            made = self._shapes.get((dependency.target.grad_fn, 0), torch.Size())
            read = getattr(dependency.target.grad_fn, "_saved_self_sym_sizes", ())
            count = len(indices)
            if dependency.target.type != OPTYPE.RESHAPE or not read or len(made) < len(read):
                continue
            if read[-1] == count != made[-1] and count in accumulate(reversed(made), mul):
                found.append(count // made[-1])  # (n, tokens, heads, channels)
            elif len(read) == 4 and read[1] == count == math.prod(made[1:-1]):
                found.append(count // made[-2])  # (n, heads, channels, pixels)
        return found

    def readers(self, name: str) -> dict[str, dict[int, list[int]]]:
        """The layers with weights that read this layer's output channels: for each, the indices of its inputs by channel.

        Layers between that process every channel on its own, such as depthwise convolutions, do not count as readers. After a
        concatenation the indices are shifted, and after a flatten there are several for each channel.
        """
        width = self._graph.get_out_channels(self._modules[name])
        found: dict[str, dict[int, list[int]]] = {}
        for item in self._group(self._modules[name], list(range(width))).items:
            module = item.dep.target.module
            reads = self._graph.is_in_channel_pruning_fn(item.dep.handler)
            if reads and isinstance(module, WEIGHTED) and not is_depthwise(module):
                inputs = found.setdefault(self._names[module], {})
                for channel, index in zip(item.root_idxs, item.idxs, strict=True):
                    inputs.setdefault(channel, []).append(index)
        return found

    def remove(self, name: str, channels: list[int]) -> None:
        """Remove these output channels, the same of each slice, from the layer and from all layers coupled to it, in place."""
        if channels:
            self._group(self._modules[name], channels).prune()
            share_again(self._shared)
            for buffer in self._buffers:
                buffer.hold(buffer.values)

    def restore_buffers(self) -> None:
        """Let those of the model's buffers that hold parameters while channels are removed hold tensors again."""
        for buffer in self._buffers:
            buffer.hold(buffer.values.detach())

    def silence(self, name: str, channels: list[int]) -> None:
        """Set to zero, in place, the weights by which other layers read these output channels of the layer."""
        group = self._group(self._modules[name], channels)
        for dependency, indices in group:
            layer, kind = dependency.target.module, dependency.target.type
            if kind == OPTYPE.MHA:
                _silence_attention(layer, indices)
            if kind not in (OPTYPE.CONV, OPTYPE.LINEAR):
                continue
            if not self._graph.is_in_channel_pruning_fn(dependency.handler):
                if _has_attention(group):  # queries and keys are read by each other
                    for parameter in layer.parameters(recurse=False):
                        parameter.detach()[indices] = 0
                continue
            weight = layer.get_parameter("weight").detach()
            if isinstance(layer, _ConvTransposeNd):
                weight[indices] = 0  # (in, out, k, k)
                continue
            by_group = weight.view(getattr(layer, "groups", 1), -1, *weight.shape[1:])  # (groups, out / groups, in / groups, ...)
            inputs = by_group.shape[2]
            for index in indices:
                by_group[index // inputs, :, index % inputs] = 0

    def summed(self, name: str, channels: list[int]) -> dict[int, list[int]]:
        """Where products of tensors sum over these output channels of the layer: the positions, by the number of the product."""
        found = {}
        for dependency, indices in self._group(self._modules[name], channels):
            readers = {dependency.target.grad_fn, *(reader.grad_fn for reader in dependency.target.outputs)}
            for number in {self._products[reader] for reader in readers & self._products.keys()}:
                if positions := summed_positions(dependency.target, indices):
                    found[number] = positions
        return found

    def _group(self, layer: nn.Module, channels: list[int]) -> Any:
        """Torch-Pruning's group of all changes that follow from removing these output channels of the layer."""
        cut: Callable[..., nn.Module] = self._graph.get_pruner_of_module(layer).prune_out_channels
        return self._graph.get_pruning_group(layer, cut, channels)


class _Circles(Exception):
    """The channels of a layer come back to a node as other channels, again and again; the text is the node's operation."""


class _Group(torch_pruning.dependency.graph.Group):  # type: ignore[misc]
    """Torch-Pruning's group, which would otherwise grow forever where channels come back as others each time."""

    def __init__(self) -> None:
        super().__init__()
        self._visits = Counter[int]()

    def add_dep(self, dep: Any, idxs: Any) -> None:
        self._visits[id(dep)] += 1
        if self._visits[id(dep)] > _MOST_VISITS or len(idxs) > _MOST_TIMES * len({index.idx for index in idxs}):
            raise _Circles(_kind_of(dep.target))
        if self._visits[id(dep)] > 1 and isinstance(dep.target.module, WEIGHTED):
            pruner, reads = dep.handler.__self__, dep.handler.__name__ == "prune_in_channels"
            count = (pruner.get_in_channels if reads else pruner.get_out_channels)(dep.target.module)
            if max(index.idx for index in idxs) >= count:  # each time around, they would be others
                raise _Circles(_kind_of(dep.target))
        super().add_dep(dep, idxs)


def _has_attention(group: Any) -> bool:
    """True if the channels of a group are multiplied with each other outside of a module for it."""
    products = ("BmmBackward", "ScaledDotProduct")
    nodes = [dependency.target for dependency, _ in group]
    return any(type(node.grad_fn).__name__.startswith(products) for node in nodes) and all(
        node.type != OPTYPE.MHA for node in nodes
    )


def _silence_attention(layer: nn.MultiheadAttention, channels: list[int]) -> None:
    """Set to zero what reads these channels, and the queries, keys and values at the same places."""
    layer.in_proj_weight.detach()[:, channels] = 0  # (3 * channels, channels)
    layer.in_proj_weight.detach().view(3, -1, layer.embed_dim)[:, channels] = 0
    if layer.in_proj_bias is not None:
        layer.in_proj_bias.detach().view(3, -1)[:, channels] = 0
    layer.out_proj.weight.detach()[:, channels] = 0


def _kind_of(node: Any) -> str:
    """The operation of a node of Torch-Pruning's graph, for people, such as `SplitBackward0`."""
    return type(node.grad_fn).__name__.removesuffix("0").removesuffix("Backward").lower() or OPTYPE(node.type).name.lower()


class _Graph(torch_pruning.DependencyGraph):  # type: ignore[misc]
    """Torch-Pruning's graph by our rules and with our groups. Whoever else uses the library here has it as it is."""

    def __init__(self) -> None:
        with _our_rules():
            super().__init__()

    def build_dependency(self, *arguments: Any, **options: Any) -> Any:
        with _our_rules():
            return super().build_dependency(*arguments, **options)

    def get_pruner_of_module(self, module: Any) -> Any:
        with _our_rules():
            return super().get_pruner_of_module(module)

    def get_pruning_group(self, *arguments: Any) -> Any:
        with _our_rules():
            return super().get_pruning_group(*arguments)


@contextmanager
def _our_rules() -> Iterator[None]:
    rules = [*places.RULES, *axes.RULES, *grouping.RULES, (torch_pruning.dependency.graph, "Group", _Group)]
    usual = [getattr(module, name) for module, name, _ in rules]
    try:
        for module, name, ours in rules:
            setattr(module, name, ours)
        yield
    finally:
        for (module, name, _), theirs in zip(rules, usual, strict=True):
            setattr(module, name, theirs)


def _makes_one_of_each_group(layer: nn.Module) -> bool:
    """True for a convolution that makes one channel of several in each group."""
    return isinstance(layer, _ConvNd) and 1 < layer.groups == layer.out_channels < layer.in_channels
