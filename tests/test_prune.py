"""Which filters stay, and what the pruned network computes."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from netadapt.pruning.prune import PruningError, prune, reshape_like
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec, conv2d, depthwise_conv2d, fully_connected

CHANNELS = 6


class Small(nn.Module):
    """Two layers added together (one block), a depthwise layer with batch normalisation, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, CHANNELS, 3, padding=1), norm=nn.BatchNorm2d(CHANNELS)))
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.depthwise = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS)
        self.classifier = nn.Linear(CHANNELS * 4 * 4, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(self.first(images))
        features = self.depthwise(features + self.second(features))
        logits: Tensor = self.classifier(features.flatten(1))
        return logits


def _graph() -> Graph:
    """Written down rather than traced: these tests are about filters."""
    image, features = (1, 4, 4, 3), (1, 4, 4, CHANNELS)
    add = LayerSpec("add", (features, features), features)
    flat = LayerSpec("flatten", (features,), (1, CHANNELS * 16))
    nodes = (
        Node("first.conv", conv2d(image, CHANNELS, 3, activation="relu"), ("images",), block="first.conv"),
        Node("second", conv2d(features, CHANNELS, 1), ("first.conv",), block="first.conv"),
        Node("add", add, ("first.conv", "second")),
        Node("depthwise", depthwise_conv2d(features, 3), ("add",)),
        Node("flatten", flat, ("depthwise",)),
        Node("classifier", fully_connected(flat.output, 5), ("flatten",)),
    )
    return Graph("small", (("images", image),), nodes, ("classifier",))


@pytest.fixture
def model() -> Small:
    torch.manual_seed(0)
    small = Small()
    with torch.no_grad():
        small.first.get_submodule("norm").get_buffer("running_mean").normal_()
    return small.eval()


def _silence(model: Small, channel: int) -> None:
    """Make a channel of the block exactly zero wherever it comes from."""
    with torch.no_grad():
        norm = model.first.get_submodule("norm")
        for tensor in (model.first.get_submodule("conv").get_parameter("weight"), model.second.weight, model.second.bias):
            assert tensor is not None
            tensor[channel] = 0
        norm.get_parameter("weight")[channel] = norm.get_parameter("bias")[channel] = 0


def test_channels_that_are_zero_go_first_and_nothing_changes_without_them(model: Small) -> None:
    _silence(model, 1)
    _silence(model, 4)
    with torch.no_grad():
        model.depthwise.weight[[1, 4]] = 0  # what it adds by its bias is seen by the classifier
        assert model.depthwise.bias is not None
        model.depthwise.bias[[1, 4]] = 0
    images = torch.randn(2, 3, 4, 4)
    pruned = prune(model, _graph(), {"first.conv": 4})
    torch.testing.assert_close(pruned(images), model(images))


def test_the_kept_filters_stay_in_their_order(model: Small) -> None:
    _silence(model, 0)
    _silence(model, 3)
    pruned = prune(model, _graph(), {"first.conv": 4})
    assert torch.equal(pruned.get_parameter("second.bias"), model.second.bias[[1, 2, 4, 5]])  # type: ignore[index]


def test_the_norms_of_all_members_of_a_block_count_together(model: Small) -> None:
    with torch.no_grad():
        first = model.first.get_submodule("conv").get_parameter("weight")
        first.fill_(0.1)
        model.second.weight.fill_(0.1)
        first[2] = 0  # the weakest of the first layer, made up for by the second
        model.second.weight[2] = 10
        model.second.weight[5] = 0
    pruned = prune(model, _graph(), {"first.conv": CHANNELS - 1})
    assert torch.equal(pruned.get_parameter("second.bias"), model.second.bias[:5])  # type: ignore[index]


def test_batch_normalisation_depthwise_and_followers_shrink_together(model: Small) -> None:
    pruned = prune(model, _graph(), {"first.conv": 2})
    shapes = {name: tuple(value.shape) for name, value in pruned.named_parameters() if name.endswith("weight")}
    assert shapes == {
        "first.conv.weight": (2, 3, 3, 3), "first.norm.weight": (2,), "second.weight": (2, 2, 1, 1),
        "depthwise.weight": (2, 1, 3, 3), "classifier.weight": (5, 2 * 16),
    }  # fmt: skip


def test_pruning_leaves_the_original_alone_and_keeps_its_mode(model: Small) -> None:
    model.train()
    model.first.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pruned = prune(model, _graph(), {"first.conv": 3})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert pruned.training and not pruned.get_parameter("first.conv.weight").requires_grad
    assert pruned.get_parameter("second.weight").requires_grad


def test_the_present_widths_give_an_equal_copy(model: Small) -> None:
    pruned = prune(model, _graph(), _graph().widths)
    assert pruned is not model
    assert torch.equal(pruned.get_parameter("second.weight"), model.second.weight)


def test_a_transposed_convolution_is_judged_by_what_makes_each_output() -> None:
    transposed, head = nn.ConvTranspose2d(3, 4, 2, stride=2), nn.Conv2d(4, 2, 1)
    with torch.no_grad():
        transposed.weight[:, 2] = 0  # (in, out, k, k)
    spec = LayerSpec("conv_transpose2d", ((1, 4, 4, 3),), (1, 8, 8, 4), kernel=(2, 2), stride=(2, 2))
    nodes = (Node("0", spec, ("images",), block="0"), Node("1", conv2d(spec.output, 2, 1), ("0",)))
    graph = Graph("up", (("images", (1, 4, 4, 3)),), nodes, ("1",))
    pruned = prune(nn.Sequential(transposed, head), graph, {"0": 3})
    assert torch.equal(pruned.get_parameter("0.bias"), transposed.bias[[0, 1, 3]])  # type: ignore[index]


def _grouped() -> tuple[nn.Sequential, Graph]:
    """Two groups that read block 0 and make block 1."""
    layers = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3, padding=1, groups=2), nn.Conv2d(12, 2, 1)
    first = conv2d((1, 4, 4, 3), 8, 1)
    second = conv2d(first.output, 12, 3, groups=2)
    nodes = (
        Node("0", first, ("images",), "0"), Node("1", second, ("0",), "1"), Node("2", conv2d(second.output, 2, 1), ("1",)),
    )  # fmt: skip
    return nn.Sequential(*layers).eval(), Graph("grouped", (("images", (1, 4, 4, 3)),), nodes, ("2",))


def test_a_grouped_convolution_keeps_the_same_of_every_group() -> None:
    model, graph = _grouped()
    with torch.no_grad():
        model[0].weight[[1, 5]] = 9  # type: ignore[index]
        model[0].weight[[2, 6]] = 8  # type: ignore[index]
        model[1].weight[[0, 3, 4, 6, 9, 10]] += 9  # type: ignore[index]
    pruned = prune(model, graph, {"0": 4, "1": 6})
    expected = model[1].weight[[0, 3, 4, 6, 9, 10]][:, [1, 2]]  # type: ignore[index]
    assert torch.equal(pruned.get_parameter("1.weight"), expected)
    assert pruned(torch.zeros(1, 3, 4, 4)).shape == (1, 2, 4, 4)
    reshape_like(model, graph, {"0": 4, "1": 6}).load_state_dict(pruned.state_dict())


@pytest.mark.parametrize(("width", "sentence"), [(5, "cannot be split into 2 groups"), (2, "2 groups need 4 channels")])
def test_a_width_that_groups_cannot_take_is_refused(width: int, sentence: str) -> None:
    with pytest.raises(PruningError, match=sentence):
        prune(*_grouped(), {"0": width})


def test_weights_of_a_pruned_network_load_into_a_reshaped_one(model: Small) -> None:
    widths = {"first.conv": 3}
    pruned = prune(model, _graph(), widths)
    rebuilt = reshape_like(Small().eval(), _graph(), widths)
    rebuilt.load_state_dict(pruned.state_dict())
    images = torch.randn(2, 3, 4, 4)
    assert torch.equal(rebuilt(images), pruned(images))


@pytest.mark.parametrize(
    ("widths", "sentence"),
    [
        ({"first.conv": CHANNELS + 1}, "has 6 channels and cannot be pruned to 7"),
        ({"first.conv": 0}, "cannot be pruned to 0"),
        ({"first.con": 3}, "did you mean 'first.conv'"),
    ],
)
def test_impossible_widths_are_told_in_one_sentence(model: Small, widths: dict[str, int], sentence: str) -> None:
    with pytest.raises(PruningError, match=sentence):
        prune(model, _graph(), widths)


def test_a_graph_of_another_width_is_refused(model: Small) -> None:
    with pytest.raises(PruningError, match="has 6 filters, but 4 in the graph"):
        prune(model, _graph().at_widths({"first.conv": 4}), {"first.conv": 2})
