"""Tracing: layers from the exported file, blocks from the couplings, and both in agreement with the network itself."""

from __future__ import annotations

import random
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from device_agents.support.errors import ToolError
from netadapt.pruning.prune import prune
from netadapt.pruning.tracing import trace
from profiler.layers.channels import possible_widths
from profiler.layers.graph import Graph

SHAPE = (1, 3, 16, 16)


class Residual(nn.Module):
    """A stem, a residual pair, a depthwise layer, a flattened classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.inner = nn.Conv2d(16, 24, 1)
        self.outer = nn.Conv2d(24, 16, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16)
        self.classifier = nn.Linear(16 * 8 * 8, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(self.stem(images))
        features = features + self.outer(functional.relu(self.inner(features)))
        logits: Tensor = self.classifier(self.depthwise(features).flatten(1))
        return logits


class Depth(nn.Module):
    """As networks for depth: two branches put together, a transposed convolution, a head of one channel, upsampled."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.right = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(24, 16, 2, stride=2)
        self.prune = nn.Conv2d(16, 1, 1)
        self.wide = nn.Conv2d(1, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.cat([functional.relu(self.left(images)), functional.relu(self.right(images))], dim=1)
        features = functional.relu(self.prune(functional.relu(self.up(features))))
        return functional.interpolate(self.head(functional.relu(self.wide(features))), scale_factor=2)


class Entwined(nn.Module):
    """A depthwise layer of two channels for each, a layer used twice, and a concatenation that is added to another's output."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.grouped = nn.Conv2d(8, 16, 1, groups=8)
        self.twice = nn.Conv2d(16, 16, 1)
        self.left = nn.Conv2d(16, 8, 1)
        self.right = nn.Conv2d(16, 8, 1)
        self.free = nn.Conv2d(16, 12, 1)
        self.classifier = nn.Conv2d(12, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(self.grouped(functional.relu(self.first(images))))
        features = self.twice(functional.relu(self.twice(features)))
        features = features + torch.cat([self.left(features), self.right(features)], dim=1)
        scores: Tensor = self.classifier(functional.relu(self.free(features)))
        return scores


class Grouped(nn.Module):
    """A residual over a grouped bottleneck, as in ResNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.inner, self.grouped, self.outer = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 24, 3, padding=1, groups=4), nn.Conv2d(24, 16, 1)
        self.classifier = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(self.stem(images))
        features = features + self.outer(functional.relu(self.grouped(functional.relu(self.inner(features)))))
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits


class Branching(nn.Module):
    """Goes one way or another depending on its pixels, which no graph can say."""

    def forward(self, images: Tensor) -> Tensor:
        return images + 1 if images.sum() > 0 else images


def _random_widths(graph: Graph, seed: int) -> dict[str, int]:
    chance = random.Random(seed)
    return {block: chance.choice(widths) for block, widths in possible_widths(graph, 1).items()}


def test_nodes_are_named_after_their_modules() -> None:
    graph = trace(Residual(), (SHAPE,), "residual")
    assert {"stem", "inner", "outer", "depthwise", "classifier"} <= {node.name for node in graph.nodes}
    assert graph.name == "residual"


def test_partners_of_a_residual_addition_share_one_block() -> None:
    graph = trace(Residual(), (SHAPE,), "residual")
    blocks = {node.name: node.block for node in graph.nodes if node.block}
    assert blocks == {"stem": "stem", "inner": "inner", "outer": "stem"}


def test_a_head_of_one_channel_is_a_convolution_and_what_makes_the_output_has_no_block() -> None:
    graph = trace(Depth(), (SHAPE,), "depth")
    nodes = {node.name: node for node in graph.nodes}
    assert (nodes["head"].layer.op, nodes["wide"].layer.op) == ("conv2d", "conv2d")
    assert list(graph.widths) == ["left", "right", "up", "wide"]


def test_layers_whose_widths_follow_another_have_no_block_of_their_own() -> None:
    assert trace(Entwined(), (SHAPE,), "entwined").widths == {"first": 8, "free": 12}


def test_a_grouped_bottleneck_can_be_pruned_to_what_its_groups_divide() -> None:
    possible = possible_widths(trace(Grouped(), (SHAPE,), "grouped"), 1)
    assert {block: widths[:3] for block, widths in possible.items()} == {
        "stem": (1, 2, 3), "inner": (8, 12, 16), "grouped": (8, 12, 16),
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "seed"), [(Residual, 0), (Depth, 1), (Grouped, 2)])
def test_the_graph_at_other_widths_is_the_graph_of_the_pruned_network(kind: type[nn.Module], seed: int) -> None:
    torch.manual_seed(seed)
    model = kind()
    graph = trace(model, (SHAPE,), "network")
    widths = {block: max(2, width) for block, width in _random_widths(graph, seed).items()}
    assert trace(prune(model, graph, widths), (SHAPE,), "network").layers == graph.at_widths(widths).layers


def _with_batch_norm() -> nn.Sequential:
    parts = OrderedDict(conv=nn.Conv2d(3, 8, 3, bias=False), norm=nn.BatchNorm2d(8), activation=nn.ReLU6(), head=nn.Conv2d(8, 2, 1))
    return nn.Sequential(parts)


def test_a_network_before_training_has_the_layers_that_it_has_after() -> None:
    fresh, trained = _with_batch_norm(), _with_batch_norm()
    trained(torch.randn(4, 3, 16, 16))  # moves the running statistics
    graph = trace(fresh, (SHAPE,), "network")
    assert graph == trace(trained, (SHAPE,), "network")
    assert graph.nodes[0].layer.bias


def test_tracing_leaves_the_model_as_it_is() -> None:
    model = _with_batch_norm().train()
    model.get_submodule("norm").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trace(model, (SHAPE,), "network")
    assert model.training and not model.get_submodule("norm").training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_network_that_cannot_be_traced_is_told_in_one_sentence() -> None:
    with pytest.raises(ToolError, match=r"^the model cannot be written as onnx: [^\n]+$"):
        trace(Branching(), (SHAPE,), "branching")


def test_tracing_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    trace(Residual(), (SHAPE,), "residual")
    assert capfd.readouterr() == ("", "")


class Twice(nn.Module):
    """One convolution for two halves of an image, which are compared."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 4)

    def forward(self, images: Tensor) -> Tensor:
        left, right = (self.stem(half).relu().mean((2, 3)) for half in images.chunk(2, 3))
        scores: Tensor = self.head((left - right).abs())
        return scores


def test_the_weights_of_a_layer_that_is_called_twice_count_once_and_its_work_twice() -> None:
    model = Twice().eval()
    graph = Graph.from_dict(trace(model, (SHAPE,), "twice").to_dict())
    assert graph.parameters == sum(weight.numel() for weight in model.parameters())
    assert graph.macs == 2 * 14 * 6 * 16 * 27 + 16 * 4
    narrow = prune(model, graph, {"stem": 8})
    assert graph.at_widths({"stem": 8}).parameters == sum(weight.numel() for weight in narrow.parameters())


class Matrices(nn.Module):
    """Two matrices of one module, which are no layers of it."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(16, 24)), nn.Parameter(torch.randn(24, 16))

    def forward(self, features: Tensor) -> Tensor:
        return (features @ self.up).relu() @ self.down


def test_several_weights_of_one_module_all_count() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Matrices(), nn.Linear(16, 4)).eval()
    assert trace(model, (SHAPE,), "matrices").parameters == sum(weight.numel() for weight in model.parameters())
