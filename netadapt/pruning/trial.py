"""A trial of blocks: copies of the network are pruned, and must compute what they did before.

Channels that no layer reads can be removed without changing the outputs. So about half of a block's channels, the same of each
slice, are removed from one copy, and in another copy the weights that read them are set to zero. A block is sound if both copies
give the same outputs, and the layers of the pruned one have the shapes that the graph predicts, if no sizes are to be learnt.
Weights are random, so that no layer has outputs of zero by itself. Normalisations with statistics over several channels only apply
their weights in both copies, because the statistics change with the channels; means and the like over channels are ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd
from torch.overrides import TorchFunctionMode

from netadapt.input_shapes import InputShapes, input_shapes_of
from netadapt.outputs import MISFITS, outputs_of_all_layers
from netadapt.pruning.couplings import WEIGHTED, Couplings
from netadapt.pruning.places import PRODUCTS
from netadapt.training.trees import random_inputs
from profiler.layers.graph import Graph

RELATIVE_TOLERANCE = 1e-3
"""The largest difference, relative to the largest output: sums in another order give about 1e-6, a wrong channel far more."""
_SEED = 0
_EXAMPLES = 2
_REDUCTIONS = ("mean", "var", "std", "norm", "linalg_vector_norm", "amax", "amin", "max", "min")
"""The functions whose results are statistics; a sum is not, because channels of zeros add nothing to it."""

_OTHER = "the network computes something else without some of its channels"


def unsound_blocks(model: nn.Module, graph: Graph) -> dict[str, str]:
    """The blocks of the graph that cannot be pruned, with what goes wrong; all others can be at the same time.

    The model is not changed.
    """
    shapes = input_shapes_of(graph)
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        inputs = random_inputs(shapes, _EXAMPLES)
        try:
            model = randomised(model, *inputs)
        except MISFITS as exc:  # the network takes no batch of two, or fails with random weights
            return dict.fromkeys(graph.widths, f"the network cannot be tried with two random examples: {_first_line(exc)}")
        trial = _Trial(model, graph, inputs, shapes)
        blocks = list(graph.widths)
        if not trial.problem(blocks):  # the usual case, in one trial; otherwise blocks are added one by one
            return {}
        sound: list[str] = []
        unsound: dict[str, str] = {}
        for block in blocks:
            if problem := trial.problem([*sound, block]):
                unsound[block] = problem
            else:
                sound.append(block)
        return unsound


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


class _Trial:
    def __init__(self, model: nn.Module, graph: Graph, inputs: tuple[Tensor, ...], input_shapes: InputShapes) -> None:
        self._model, self._graph, self._inputs, self._input_shapes = model, graph, inputs, input_shapes
        couplings = Couplings(deepcopy(model), input_shapes)
        has_parts = any(couplings.coupled(block).parts for block in graph.widths)
        self._is_predictable = not has_parts and all(node.layer.opaque is None for node in graph.nodes)
        self._removed = {
            block: _about_half(width, couplings.slices(block), place % 3)
            for place, (block, width) in enumerate(graph.widths.items())
        }

    def problem(self, blocks: Sequence[str]) -> str:
        """What goes wrong if all these blocks are pruned at the same time; empty if nothing does."""
        if not blocks:
            return ""
        pruned, silenced = deepcopy(self._model), deepcopy(self._model)
        summed: dict[int, list[int]] = {}
        try:
            cuts, silences = Couplings(pruned, self._input_shapes), Couplings(silenced, self._input_shapes)
            for block in blocks:
                for product, positions in silences.summed(block, self._removed[block]).items():
                    summed.setdefault(product, []).extend(positions)
                silences.silence(block, self._removed[block])
                cuts.remove(block, self._removed[block])
            widths = {block: self._graph.widths[block] - len(self._removed[block]) for block in blocks}
            modules = dict(pruned.named_modules())
            for node in self._graph.at_widths(widths).nodes if self._is_predictable else ():
                module = modules.get(node.name)
                if isinstance(module, WEIGHTED) and node.layer.weight_shape != _weight_shape(module):
                    return _OTHER
            with torch.no_grad(), _without_statistics():
                outputs, expected = self._outputs(pruned, silenced, summed)
            same = all(
                found.shape == wanted.shape
                and float((found - wanted).abs().max()) <= RELATIVE_TOLERANCE * float(wanted.abs().max())  # so that NaN fails
                for found, wanted in zip(outputs, expected, strict=True)
                if wanted.is_floating_point()  # others, such as the number of a class, are computed from them
            )
            return "" if same else _OTHER
        except MISFITS as exc:
            return f"the network fails without some of its channels: {_first_line(exc)}"

    def _outputs(
        self, pruned: nn.Module, silenced: nn.Module, summed: Mapping[int, list[int]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """What both copies compute, with ones for what they reduce over another number of values: statistics over channels.

        The second multiplies zeros at these positions, by the number of the product.
        """
        with _Reductions() as fewer:
            outputs = outputs_of_all_layers(pruned, *self._inputs)
        with _Reductions() as all_of_them, _ZerosInProducts(summed):
            expected = outputs_of_all_layers(silenced, *self._inputs)
        differ = {place for place, sizes in enumerate(zip(fewer.sizes, all_of_them.sizes, strict=True)) if len(set(sizes)) > 1}
        if not differ:
            return outputs, expected
        with _Reductions(differ):
            outputs = outputs_of_all_layers(pruned, *self._inputs)
        with _Reductions(differ), _ZerosInProducts(summed):
            return outputs, outputs_of_all_layers(silenced, *self._inputs)


class _Reductions(TorchFunctionMode):
    """Counts the values that each mean and the like is made of, in the order of calls, and replaces some of the results by ones."""

    def __init__(self, replaced: Collection[int] = ()) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self._replaced = replaced

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        values = result[0] if isinstance(result, tuple) and result else result  # a maximum along an axis comes with its place
        if getattr(function, "__name__", "") in _REDUCTIONS and isinstance(values, Tensor) and isinstance(args[0], Tensor):
            self.sizes.append(args[0].numel() // values.numel())
            if len(self.sizes) - 1 in self._replaced:
                ones = torch.ones_like(values)
                return type(result)((ones, *result[1:])) if isinstance(result, tuple) else ones
        return result


class _ZerosInProducts(TorchFunctionMode):
    """Sets the first factors of products to zero at these positions of the axis that is summed, by the number of the product.

    The channels of queries and keys are read by no weights that could be zero instead.
    """

    def __init__(self, summed: Mapping[int, list[int]]) -> None:
        super().__init__()
        self._summed = summed
        self._count = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") in PRODUCTS:
            if positions := self._summed.get(self._count):
                args = (args[0].index_fill(-1, torch.tensor(positions), 0), *args[1:])
            self._count += 1
        return function(*args, **(kwargs or {}))


@contextmanager
def _without_statistics() -> Iterator[None]:
    """Normalisations over several channels only apply their weights, and a softmax takes each number by itself.

    So they do in torch's modules and in the user's own code alike.
    """

    def layer_norm(
        input: Tensor, normalized_shape: object, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 0
    ) -> Tensor:
        weighted = input if weight is None else input * weight
        return weighted if bias is None else weighted + bias

    def group_norm(
        input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 0
    ) -> Tensor:
        of_channels = (-1, *(1,) * (input.ndim - 2))
        parts = [None if part is None else part.reshape(of_channels) for part in (weight, bias)]
        return layer_norm(input, None, parts[0], parts[1])

    def softmax(input: Tensor, dim: int | None = None, *_args: object, **_options: object) -> Tensor:
        # attention divides its products by the root of the width, which is another one when channels go
        is_attention = input.ndim > 2 and dim in (-1, input.ndim - 1)
        return (input / input.abs().max() if is_attention else input).sigmoid()

    def attention(query: Tensor, key: Tensor, value: Tensor, *_args: object, **_options: object) -> Tensor:
        return softmax(query @ key.transpose(-2, -1), -1) @ value

    replaced: list[tuple[Any, str, Callable[..., Tensor]]] = [
        (functional, "layer_norm", layer_norm), (functional, "group_norm", group_norm),
        (functional, "scaled_dot_product_attention", attention),
        *((place, "softmax", softmax) for place in (functional, torch, Tensor)),
    ]  # fmt: skip
    usual = [getattr(place, name) for place, name, _ in replaced]
    had_fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # one operator that has everything in it
        for place, name, function in replaced:
            setattr(place, name, function)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(had_fast_path)
        for (place, name, _), function in zip(replaced, usual, strict=True):
            setattr(place, name, function)


def _about_half(width: int, slices: int, fewer: int) -> list[int]:
    """Random channels to remove, the same of each slice: not more than half, as a grouped convolution needs two in each group.

    Blocks that lose as many channels would not show that the network's code takes the width of one for that of another.
    """
    size = width // slices
    positions = torch.randperm(size)[: max(1, size // 2 - fewer)].tolist()
    return sorted(start + position for start in range(0, width, size) for position in positions)


def randomised(model: nn.Module, *inputs: Tensor) -> nn.Module:
    """A copy in evaluation with random weights (He et al., 2015) and the statistics of these inputs in batch normalisation.

    With both, activations neither vanish nor saturate.
    """
    copy = deepcopy(model)
    with torch.no_grad():
        for weight in copy.parameters():
            if weight.ndim > 1:
                weight.normal_(0, (2 / max(1, weight[0].numel())) ** 0.5)
            else:
                weight.uniform_(0.2, 1.0)
        norms = [module for module in copy.eval().modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train()
            norm.momentum = 1.0  # the statistics are those of this batch alone
        copy(*inputs)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return copy.eval()


def _weight_shape(module: nn.Module) -> tuple[int, ...]:
    """The shape of the layer's weights with the outputs first, as in `LayerSpec.weight_shape`."""
    shape = tuple(module.get_parameter("weight").shape)
    if isinstance(module, _ConvTransposeNd):
        return (shape[1] * module.groups, shape[0] // module.groups, *shape[2:])
    return shape
