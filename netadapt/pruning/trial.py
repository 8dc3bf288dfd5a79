"""Whether blocks are what they are taken for: a copy of the network is pruned on trial and has to compute what it did before.

Channels that nothing reads can be removed without any change. So half of a block's channels, the same of each of its slices, are
removed from one copy, and in another the weights that read them are set to zero: if both give the same outputs, and the pruned
layers have the shapes that the graph says, the block holds. Weights are random, so that no layer is silent by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from netadapt.input_shape import InputShape
from netadapt.pruning.couplings import WEIGHTED, Couplings, as_list
from profiler.layers.graph import Graph

RELATIVE_TOLERANCE = 1e-3
"""Of the largest output. Sums in another order give about 1e-6, a channel too many far more than this."""
_SEED = 0
_IMAGES = 2
# what is raised by a network whose parts no longer fit together, or by what takes it apart
_MISFITS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ZeroDivisionError)


def sound_blocks(model: nn.Module, graph: Graph) -> list[str]:
    """Those of the graph's blocks that can be pruned together, in its order. The model is left as it is."""
    _, (n, height, width, channels) = graph.inputs[0]
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        images = torch.randn(_IMAGES, channels, height, width)
        try:
            model = _randomised(model, images)
        except _MISFITS:
            return []  # it takes no two images, or has no use for random weights
        trial = _Trial(model, graph, images, (n, channels, height, width))
        blocks = list(graph.widths)
        if trial.holds(blocks):
            return blocks
        sound: list[str] = []
        for block in blocks:
            if trial.holds([*sound, block]):
                sound.append(block)
        return sound


class _Trial:
    def __init__(self, model: nn.Module, graph: Graph, images: Tensor, input_shape: InputShape) -> None:
        self._model, self._graph, self._images, self._input_shape = model, graph, images, input_shape
        couplings = Couplings(deepcopy(model), input_shape)
        self._removed = {block: _half(width, couplings.slices(block)) for block, width in graph.widths.items()}

    def holds(self, blocks: Sequence[str]) -> bool:
        if not blocks:
            return True
        pruned, silent = deepcopy(self._model), deepcopy(self._model)
        try:
            cuts, silences = Couplings(pruned, self._input_shape), Couplings(silent, self._input_shape)
            for block in blocks:
                silences.silence(block, self._removed[block])
                cuts.remove(block, self._removed[block])
            widths = {block: self._graph.widths[block] - len(self._removed[block]) for block in blocks}
            return self._has_the_shapes(pruned, widths) and self._computes_the_same(pruned, silent)
        except _MISFITS:
            return False

    def _has_the_shapes(self, model: nn.Module, widths: Mapping[str, int]) -> bool:
        modules = dict(model.named_modules())
        for node in self._graph.at_widths(widths).nodes:
            module = modules.get(node.name)
            if isinstance(module, WEIGHTED) and node.layer.weight_shape != _weight_shape(module):
                return False
        return True

    def _computes_the_same(self, one: nn.Module, other: nn.Module) -> bool:
        outputs = zip(_outputs(one, self._images), _outputs(other, self._images), strict=True)
        return all(
            found.shape == expected.shape
            and float((found - expected).abs().max()) <= RELATIVE_TOLERANCE * float(expected.abs().max())  # so that NaN fails
            for found, expected in outputs
        )


def _half(width: int, slices: int) -> list[int]:
    """Channels at random, the same of each slice; not more than half, as a grouped convolution needs two in each group."""
    each = width // slices
    positions = torch.randperm(each)[: max(1, each // 2)].tolist()
    return sorted(start + position for start in range(0, width, each) for position in positions)


def _randomised(model: nn.Module, images: Tensor) -> nn.Module:
    """A copy in evaluation; batch normalisation has seen the images, so that activations neither vanish nor saturate."""
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
            norm.momentum = 1.0
        copy(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return copy.eval()


def _weight_shape(module: nn.Module) -> tuple[int, ...]:
    """As `LayerSpec.weight_shape`: outputs first."""
    shape = tuple(module.get_parameter("weight").shape)
    if isinstance(module, nn.ConvTranspose2d):
        return (shape[1] * module.groups, shape[0] // module.groups, *shape[2:])
    return shape


def _outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        return as_list(model(images))
