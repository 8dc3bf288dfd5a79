"""Torch-Pruning's own pruner, as a user of that library runs it (Fang et al., CVPR 2023, https://arxiv.org/abs/2301.12900).

Equal to the adapted network: the measured latency; the original's trained weights; the steps of one candidate's short-term
fine-tune in each iteration, here without a break, and of the long-term fine-tune. Different: the library's `BasePruner` chooses
which channels go, over all layers at once, by the first-order Taylor expansion of the loss (Molchanov et al., CVPR 2019,
https://arxiv.org/abs/1906.10771), whose gradients are those of the original on training images. It prunes in small steps until
the table predicts the latency of the adapted network; layers that are no block of the run keep their widths.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
import torch_pruning
from torch import nn
from torch.nn.modules.conv import _ConvNd

from netadapt.baselines.match import Match, Widths
from netadapt.errors import NetAdaptError
from netadapt.pruning.batch_norm import reestimate
from netadapt.pruning.couplings import WEIGHTED
from netadapt.pruning.importance.l2 import filters_of
from netadapt.runs.records import Choice
from netadapt.runs.training_schedule import Stage, origin
from netadapt.training.trainer import chosen_device
from netadapt.training.types import Part
from netadapt.users_code import users_code
from profiler.layers.graph import Graph

STEPS = 100
"""The number of steps in which everything would be pruned: each removes 1 % of all channels."""
MOST_PRUNED = 0.95
"""The largest share of its channels that a layer loses."""
IMAGES = 1024
"""Training images whose gradients the importance is made of."""
BEYOND = 0.95
"""Networks are pruned until the prediction is this share of the step's latency, so that the nearest one is among them."""
_BATCH = 32


class TorchPruning:
    """The trained original, pruned by Torch-Pruning over all layers at once."""

    title: ClassVar[str] = "Torch-Pruning"
    shape: ClassVar[str] = "torch-pruning"
    needs_latency: ClassVar[bool] = True
    from_random_weights: ClassVar[bool] = False

    def choose(self, match: Match) -> Choice:
        """The pruned network whose measured latency is nearest to the step's. `NetAdaptError` if the library prunes nothing."""
        networks: dict[str, Widths] = {}
        match.progress.begin("pruning with Torch-Pruning", STEPS)
        for label, widths, _ in pruned(match):
            match.progress.advance(label)
            networks[label] = widths
            if match.predicted_ms(widths) <= BEYOND * match.step_ms:
                break
        if not networks:
            raise NetAdaptError(f"Torch-Pruning prunes nothing of {match.models.run.graph.name}; leave out --kind torch-pruning")
        return match.nearest(self.shape, networks)

    def origin(self, match: Match, choice: Choice) -> str:
        run = match.models.run
        return origin(run.weights_path(run.steps[0].weights))

    def begin(self, match: Match, choice: Choice, seed: int) -> nn.Module:
        models = match.models
        model = next(model for label, _, model in pruned(match) if label == choice.label)
        reestimate(model, models.dataset.train, models.run.info.settings.pruning.bn_recalibration_batches, seed)
        model.zero_grad(set_to_none=True)
        return model.eval()

    def stages(self, match: Match) -> tuple[Stage, ...]:
        return match.stages.pruned(match.step.iteration)


def pruned(match: Match) -> Iterator[tuple[str, Widths, nn.Module]]:
    """Ever narrower networks: a label, the width of each block, and the network, which the next step changes in place.

    The same run gives the same networks each time. `NetworkError` if the library fails on the network.
    """
    models = match.models
    original = models.step(0)
    model, graph = models.model(original, finished=False), models.graph(original.widths)
    _accumulate_gradients(model, models.dataset.train, models.run.info.settings.seed)
    _, (_, height, width, channels) = graph.inputs[0]
    with users_code(f"Torch-Pruning cannot prune {graph.name}"):
        pruner = torch_pruning.pruner.BasePruner(
            model,
            torch.zeros(1, channels, height, width),
            importance=torch_pruning.importance.GroupTaylorImportance(),
            global_pruning=True,
            pruning_ratio=1.0,
            max_pruning_ratio=MOST_PRUNED,
            iterative_steps=STEPS,
            ignored_layers=_fixed(model, graph),
            round_to=models.run.info.settings.search.width_step,
        )
    before: Widths = original.widths
    for number in range(1, STEPS + 1):
        with users_code(f"Torch-Pruning cannot prune {graph.name}"):
            pruner.step()
        found = _widths(model, graph)
        if dict(found) != dict(before):
            yield f"{number}-percent", found, model
        before = found


def _accumulate_gradients(model: nn.Module, part: Part, seed: int) -> None:
    """Leave in the model the gradients of the loss, summed over batches of training images without augmentation."""
    place = chosen_device(None)
    model.to(place).eval().requires_grad_(True).zero_grad()
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))[:IMAGES]
    for indices in torch.split(order, _BATCH):
        images, targets = part.batch(indices, place)
        torch.autograd.backward(part.task.loss(model(images).float(), targets))
    for weight in model.parameters():
        if weight.grad is None:  # it takes no part in the outputs
            weight.grad = torch.zeros_like(weight)
    model.cpu()


def _fixed(model: nn.Module, graph: Graph) -> list[nn.Module]:
    """The layers with weights that belong to no block; depthwise convolutions have the width of the layer before them."""
    members = {node.name for node in graph.nodes if node.block is not None}

    def is_depthwise(layer: nn.Module) -> bool:
        return isinstance(layer, _ConvNd) and layer.groups == layer.in_channels > 1

    return [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, WEIGHTED) and name not in members and not is_depthwise(layer)
    ]


def _widths(model: nn.Module, graph: Graph) -> Widths:
    """The width of each block: the number of filters of its layers."""
    found: dict[str, int] = {}
    modules = dict(model.named_modules())
    for node in graph.nodes:
        if node.block is not None and node.name in modules:  # a further call of a layer has a name of its own
            found.setdefault(node.block, len(filters_of(modules[node.name])))
    return found
