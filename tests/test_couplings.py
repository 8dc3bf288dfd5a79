"""Which channels hang together in networks of all sorts, and that pruning them is never wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
import torch_pruning
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from more_families import blazeface, linear_attention, sagan
from torch import Tensor, nn
from torch.nn import functional
from torch_pruning.dependency import index_mapping

from netadapt.networks import NETWORKS, build_network
from netadapt.pruning.couplings import Couplings
from netadapt.pruning.prune import prune, prune_in_order, reshape_like
from netadapt.pruning.tracing import trace, trace_with_reasons
from profiler.layers.channels import possible_widths
from profiler.layers.graph import Graph

SHAPE = (1, 3, 8, 8)


class Layers(nn.Module):
    """Named layers and a function that calls them."""

    def __init__(self, forward: Callable[[nn.ModuleDict, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(layers)
        self.call = forward

    def forward(self, images: Tensor) -> Tensor:
        return self.call(self.parts, images)


def _conv(inputs: int, outputs: int, kernel: int = 1, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


def _dense(p: nn.ModuleDict, x: Tensor) -> Tensor:
    x = functional.relu(p["stem"](x))
    x = torch.cat([x, functional.relu(p["first"](x))], 1)
    x = torch.cat([x, functional.relu(p["second"](x))], 1)
    return p["head"](x)


def _unet(p: nn.ModuleDict, x: Tensor) -> Tensor:
    wide = functional.relu(p["down"](x))
    low = functional.relu(p["low"](functional.max_pool2d(wide, 2)))
    return p["head"](torch.cat([p["up"](low), wide], 1))


def _gated(p: nn.ModuleDict, x: Tensor) -> Tensor:
    x = functional.hardswish(p["stem"](x))
    gate = functional.hardsigmoid(p["expand"](functional.relu(p["reduce"](functional.adaptive_avg_pool2d(x, 1)))))
    return p["head"](x * gate)


def _gated_by_linear(p: nn.ModuleDict, x: Tensor) -> Tensor:
    x = functional.relu(p["stem"](x))
    gate = torch.sigmoid(p["expand"](functional.relu(p["reduce"](x.mean((2, 3))))))
    return p["head"](x * gate[:, :, None, None])


def _one_channel_gate(p: nn.ModuleDict, x: Tensor) -> Tensor:
    x = functional.relu(p["stem"](x))
    return p["head"](functional.relu(p["after"](torch.sigmoid(p["one"](x)))))


def _shuffled(p: nn.ModuleDict, x: Tensor) -> Tensor:
    return p["head"](functional.relu(p["after"](functional.pixel_shuffle(p["before"](functional.relu(p["stem"](x))), 2))))


def _in_line(p: nn.ModuleDict, x: Tensor) -> Tensor:
    for name, layer in p.items():
        x = layer(x) if name == "head" else functional.relu(layer(x))
    return x


def _softmax(p: nn.ModuleDict, x: Tensor) -> Tensor:
    return p["head"](functional.relu(p["after"](torch.softmax(p["mixed"](x), 1))))


def _hard_coded(p: nn.ModuleDict, x: Tensor) -> Tensor:
    return p["head"](functional.relu(p["after"](functional.relu(p["stem"](x)).view(-1, 16, 8, 8))))


def _added_to_both(p: nn.ModuleDict, x: Tensor) -> Tensor:
    both = torch.cat([p["left"](x), p["right"](x)], 1)
    return p["head"](functional.relu(p["after"](functional.relu(both + p["whole"](functional.relu(both))))))


def _called_twice(p: nn.ModuleDict, x: Tensor) -> Tensor:
    x = p["twice"](functional.relu(p["twice"](functional.relu(p["stem"](x)))))
    return p["head"](functional.relu(p["after"](x)))


def _siamese(p: nn.ModuleDict, x: Tensor) -> Tensor:
    one, other = (functional.max_pool2d(p["two"](functional.relu(p["one"](image))), (8, 4)).flatten(1) for image in (x, -x))
    return p["head"](functional.relu(p["after"](torch.cat([one, other], 1))))


def _read_in_halves(p: nn.ModuleDict, x: Tensor) -> Tensor:
    left, right = functional.relu(p["stem"](x)).chunk(2, 1)
    return p["head"](functional.relu(p["after"](functional.relu(p["reader"](left)) - functional.relu(p["reader"](right)))))


def _output_once(p: nn.ModuleDict, x: Tensor) -> Tensor:
    x = functional.relu(p["stem"](x))
    return torch.cat([p["shared"](x), p["head"](functional.relu(p["after"](functional.relu(p["shared"](-x)))))], 1)


def _split(p: nn.ModuleDict, x: Tensor) -> Tensor:
    left, right = functional.relu(p["stem"](x)).chunk(2, 1)
    return p["head"](functional.relu(p["after"](left * right)))


def _after_a_concatenation(p: nn.ModuleDict, x: Tensor) -> Tensor:
    both = torch.cat([p["left"](x), p["right"](x)], 1)
    return p["head"](functional.relu(p["after"](functional.relu(p["grouped"](both)))))


def _bottleneck(p: nn.ModuleDict, x: Tensor) -> Tensor:
    x = functional.relu(p["stem"](x))
    inner = functional.relu(p["grouped"](functional.relu(p["reduce"](x))))
    return p["head"](functional.relu(x + p["expand"](inner)))


def _grouped_beside_grouped(p: nn.ModuleDict, x: Tensor) -> Tensor:
    x = functional.relu(p["stem"](x))
    return p["head"](functional.relu(p["pairs"](x) + p["triples"](x)))


def _flattened(p: nn.ModuleDict, x: Tensor) -> Tensor:
    return p["head"](functional.relu(p["hidden"](functional.relu(p["stem"](x)).flatten(1))))


def _gated_halves(p: nn.ModuleDict, x: Tensor) -> Tensor:
    one, other = p["mixed"](functional.glu(p["gated"](p["stem"](x)), 1)).chunk(2, 1)
    return p["head"](torch.cat([one.tanh(), other.sigmoid()], 1))


def _rectified_attention(p: nn.ModuleDict, x: Tensor) -> Tensor:
    x = p["stem"](x)
    queries, keys, values = p["attended"](x).reshape(len(x), 2, 24, 64).chunk(3, 2)
    queries, keys = queries.relu(), keys.relu()
    found = (values @ keys.mT @ queries) / (keys.sum(-1, keepdim=True).mT @ queries + 1)
    return p["head"](p["after"](x + found.reshape(x.shape)))


class Numbers(nn.Module):
    """Numbers that are no weights: a factor and a kernel for each channel, and an addend for each column."""

    def __init__(self, channels: int, columns: int) -> None:
        super().__init__()
        self.register_buffer("factor", torch.linspace(0.5, 1.5, channels))
        self.register_buffer("kernel", torch.full((channels, 1, 3, 3), 1 / 9), persistent=False)
        self.register_buffer("column", torch.linspace(-1, 1, columns))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.conv2d(x, self.get_buffer("kernel"), padding=1, groups=x.shape[1])
        return x * self.get_buffer("factor").reshape(1, -1, 1, 1) + self.get_buffer("column")


class Fused(nn.Module):
    """The sum of two layers by weights that are learnt, as in BiFPN."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = _conv(3, 8), _conv(3, 8), _conv(8, 4)
        self.weights = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.weights[0] * self.one(x) + self.weights[1] * self.two(x)))


def _grouped_queries(p: nn.ModuleDict, x: Tensor) -> Tensor:
    x = p["stem"](x)
    n, _, h, w = x.shape
    queries, keys, values = (
        p[name](x).view(n, heads, -1, h * w) for name, heads in (("to_queries", 4), ("to_keys", 2), ("to_values", 2))
    )
    keys, values = (each[:, :, None].expand(-1, -1, 2, -1, -1).reshape(n, 4, -1, h * w) for each in (keys, values))
    found = values @ (keys.mT @ queries).softmax(2)
    return p["head"](p["after"](found.reshape(n, -1, h, w)))


def _summed_branches(p: nn.ModuleDict, x: Tensor) -> Tensor:
    both = functional.relu(p["both"](functional.relu(p["stem"](x))))
    both = both.view(len(x), 2, -1, *x.shape[2:])
    gates = p["gates"](both.sum(1).mean((2, 3), keepdim=True)).view(len(x), 2, -1, 1, 1).softmax(1)
    return p["head"](functional.relu((both * gates).sum(1)))


def _heads_of_two_widths(p: nn.ModuleDict, x: Tensor) -> Tensor:
    x = p["stem"](x)
    queries, keys, values = p["attended"](x).view(len(x), 2, 32, 64).split([8, 8, 16], 2)
    found = values @ (queries.mT @ keys).softmax(-1).mT
    return p["head"](p["after"](x + p["joined"](found.reshape(len(x), 32, 8, 8))))


def _gated_by_maxima(p: nn.ModuleDict, x: Tensor) -> Tensor:
    x = functional.relu(p["stem"](x))
    return p["head"](functional.relu(p["after"](x * torch.sigmoid(p["pixels"](x.max(1, keepdim=True).values)))))


def _stacked(p: nn.ModuleDict, x: Tensor) -> Tensor:
    x = functional.relu(p["stem"](x))
    both = torch.stack([functional.relu(p[name](x)) for name in ("one", "two")], 1)
    means = both.sum(1).mean((2, 3))
    gates = torch.stack([p[name](means) for name in ("gate_one", "gate_two")], 1).softmax(1)
    return p["head"]((both * gates[..., None, None]).sum(1))


def _weighted_experts(p: nn.ModuleDict, x: Tensor) -> Tensor:
    x = functional.relu(p["stem"](x))
    weights = p["weights"](x.mean((2, 3))).softmax(1)
    return p["head"](functional.relu(sum(weights[:, at, None, None, None] * p[name](x) for at, name in enumerate(("one", "two")))))


def _with_coordinates(p: nn.ModuleDict, x: Tensor) -> Tensor:
    x = functional.relu(p["stem"](x))
    places = torch.stack(torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 8), indexing="ij"))
    return p["head"](functional.relu(p["after"](torch.cat([x, places.expand(len(x), -1, -1, -1)], 1))))


def _recurrent(p: nn.ModuleDict, x: Tensor) -> Tensor:
    columns = p["feeds"](p["stem"](x)).permute(0, 3, 1, 2).flatten(2)
    return p["head"](p["recurrent"](columns)[0][:, -1, :, None, None])


KINDS: dict[str, tuple[nn.Module, dict[str, int]]] = {
    "sources of concatenations, one read by several": (
        Layers(_dense, stem=_conv(3, 16, 3), first=_conv(16, 8, 3), second=_conv(24, 12, 3), head=_conv(36, 4)),
        {"stem": 16, "first": 8, "second": 12},
    ),
    "a transposed convolution beside what was seen before": (
        Layers(_unet, down=_conv(3, 8, 3), low=_conv(8, 16, 3), up=nn.ConvTranspose2d(16, 12, 2, stride=2), head=_conv(20, 1)),
        {"down": 8, "low": 16, "up": 12},
    ),
    "a gate is multiplied as others are added": (
        Layers(_gated, stem=_conv(3, 16, 3), reduce=_conv(16, 8), expand=_conv(8, 16), head=_conv(16, 4)),
        {"stem": 16, "reduce": 8},
    ),
    "a gate of linear layers": (
        Layers(_gated_by_linear, stem=_conv(3, 16, 3), reduce=nn.Linear(16, 8), expand=nn.Linear(8, 16), head=_conv(16, 4)),
        {"stem": 16, "reduce": 8},
    ),
    "one channel is no depthwise layer": (
        Layers(_one_channel_gate, stem=_conv(3, 8), one=_conv(8, 1), after=_conv(1, 8, 3), head=_conv(8, 1)),
        {"stem": 8, "after": 8},
    ),
    "what feeds a pixel shuffle stays, what comes after it need not": (
        Layers(_shuffled, stem=_conv(3, 16), before=_conv(16, 32), after=_conv(8, 12), head=_conv(12, 3)),
        {"stem": 16, "after": 12},
    ),
    "a depthwise layer follows, a grouped one has a width of its own": (
        Layers(
            _in_line, stem=_conv(3, 8), depthwise=_conv(8, 8, 3, groups=8), feeds=_conv(8, 16), grouped=_conv(16, 24, 3, groups=4),
            after=_conv(24, 8), head=_conv(8, 4),
        ),
        {"stem": 8, "feeds": 16, "grouped": 24, "after": 8},
    ),
    "a residual over a grouped bottleneck": (
        Layers(
            _bottleneck, stem=_conv(3, 16), reduce=_conv(16, 24), grouped=_conv(24, 24, 3, groups=4), expand=_conv(24, 16),
            head=_conv(16, 4),
        ),
        {"stem": 16, "reduce": 24, "grouped": 24},
    ),
    "two and three groups of the same channels": (
        Layers(
            _grouped_beside_grouped, stem=_conv(3, 24), pairs=_conv(24, 24, groups=2), triples=_conv(24, 24, groups=3),
            head=_conv(24, 4),
        ),
        {"stem": 24, "triples": 24},
    ),
    "grouped convolutions in a row": (
        Layers(
            _in_line, stem=_conv(3, 16), one=_conv(16, 24, groups=4), depthwise=_conv(24, 24, 3, groups=24),
            two=_conv(24, 24, groups=2), head=_conv(24, 4),
        ),
        {"stem": 16, "one": 24, "two": 24},
    ),
    "a depthwise layer of several channels for each": (
        Layers(_in_line, stem=_conv(3, 8), several=_conv(8, 16, 3, groups=8), after=_conv(16, 8), head=_conv(8, 4)),
        {"stem": 8, "after": 8},
    ),
    "a grouped convolution of one output for each group": (
        Layers(_in_line, stem=_conv(3, 16), few=_conv(16, 8, 3, groups=8), after=_conv(8, 12), head=_conv(12, 4)), {"after": 12},
    ),
    "a grouped convolution that is at its narrowest": (
        Layers(_in_line, stem=_conv(3, 16), least=_conv(16, 16, groups=8), after=_conv(16, 8), head=_conv(8, 4)), {"after": 8},
    ),
    "a grouped convolution after a concatenation": (
        Layers(
            _after_a_concatenation, left=_conv(3, 8), right=_conv(3, 8), grouped=_conv(16, 16, groups=2), after=_conv(16, 8),
            head=_conv(8, 4),
        ),
        {"right": 8, "grouped": 16, "after": 8},
    ),
    "a transposed convolution of groups": (
        Layers(
            _in_line, stem=_conv(3, 16), up=nn.ConvTranspose2d(16, 16, 2, stride=2, groups=2), after=_conv(16, 8), head=_conv(8, 4),
        ),
        {"stem": 16, "up": 16, "after": 8},
    ),
    "a softmax over channels": (
        Layers(_softmax, mixed=_conv(3, 16), after=_conv(16, 8), head=_conv(8, 4)), {"mixed": 16, "after": 8},
    ),
    "a width written into the network's own code": (
        Layers(_hard_coded, stem=_conv(3, 16), after=_conv(16, 8), head=_conv(8, 4)), {"after": 8},
    ),
    "a layer added to a concatenation": (
        Layers(_added_to_both, left=_conv(3, 8), right=_conv(3, 8), whole=_conv(16, 16), after=_conv(16, 8), head=_conv(8, 4)),
        {"whole": 16, "after": 8},
    ),
    "a layer called twice": (
        Layers(_called_twice, stem=_conv(3, 8), twice=_conv(8, 8), after=_conv(8, 12), head=_conv(12, 4)), {"stem": 8, "after": 12},
    ),
    "layers that see two images, whose features are joined": (
        Layers(_siamese, one=_conv(3, 8, 3), two=_conv(8, 12), after=nn.Linear(48, 16), head=nn.Linear(16, 4)),
        {"one": 8, "two": 12, "after": 16},
    ),
    "a layer that reads both halves of another": (
        Layers(_read_in_halves, stem=_conv(3, 16), reader=_conv(8, 12), after=_conv(12, 8), head=_conv(8, 4)),
        {"stem": 16, "reader": 12, "after": 8},
    ),
    "a head that makes an output in one of its calls": (
        Layers(_output_once, stem=_conv(3, 8), shared=_conv(8, 6), after=_conv(6, 8), head=_conv(8, 4)), {"stem": 8, "after": 8},
    ),
    "pieces of a layer's output": (
        Layers(_split, stem=_conv(3, 16), after=_conv(8, 12), head=_conv(12, 4)), {"stem": 16, "after": 12},
    ),
    "halves that are joined again": (
        Layers(_gated_halves, stem=_conv(3, 8), gated=_conv(8, 32), mixed=_conv(16, 16), head=_conv(16, 4)),
        {"stem": 8, "mixed": 16},
    ),
    "attention whose channels meet in circles": (
        Layers(_rectified_attention, stem=_conv(3, 16), attended=_conv(16, 48), after=_conv(16, 8), head=_conv(8, 4)), {"after": 8},
    ),
    "keys of fewer channels than values in each head": (
        Layers(
            _heads_of_two_widths, stem=_conv(3, 16), attended=nn.Sequential(_conv(16, 64), nn.BatchNorm2d(64)),
            joined=_conv(32, 16), after=_conv(16, 8), head=_conv(8, 4),
        ),
        {"stem": 16, "after": 8},
    ),
    "keys and values of fewer heads than queries": (
        Layers(
            _grouped_queries, stem=_conv(3, 8), to_queries=_conv(8, 16), to_keys=_conv(8, 8), to_values=_conv(8, 8),
            after=_conv(16, 8), head=_conv(8, 4),
        ),
        {"stem": 8, "to_keys": 8, "to_values": 8, "after": 8},
    ),
    "a view as two branches that are gated and summed": (
        Layers(_summed_branches, stem=_conv(3, 8), both=_conv(8, 24), gates=_conv(12, 24), head=_conv(12, 4)),
        {"stem": 8, "both": 24},
    ),
    "numbers of channels and of columns that are no weights": (
        Layers(_in_line, stem=_conv(3, 8), numbers=Numbers(8, 8), after=_conv(8, 12), head=_conv(12, 4)), {"stem": 8, "after": 12},
    ),
    "gates of pixels by maxima over channels": (
        Layers(_gated_by_maxima, stem=_conv(3, 8), pixels=_conv(1, 1, 3), after=_conv(8, 12), head=_conv(12, 4)),
        {"stem": 8, "after": 12},
    ),
    "branches that are stacked, and gated beside each other": (
        Layers(
            _stacked, stem=_conv(3, 8), one=_conv(8, 12), two=_conv(8, 12, 3), gate_one=nn.Linear(12, 12),
            gate_two=nn.Linear(12, 12), head=_conv(12, 4),
        ),
        {"stem": 8, "two": 12},
    ),
    "experts that are weighted by a layer": (
        Layers(_weighted_experts, stem=_conv(3, 8), weights=nn.Linear(8, 2), one=_conv(8, 12), two=_conv(8, 12), head=_conv(12, 4)),
        {"stem": 8, "two": 12},
    ),
    "coordinates that are joined to channels": (
        Layers(_with_coordinates, stem=_conv(3, 8), after=_conv(10, 12), head=_conv(12, 4)), {"stem": 8, "after": 12},
    ),
    "a recurrent layer over columns": (
        Layers(
            _recurrent, stem=_conv(3, 8), feeds=_conv(8, 4), recurrent=nn.GRU(32, 8, batch_first=True), head=_conv(8, 4),
        ),
        {"stem": 8},
    ),
    "a convolution whose pixels are flattened": (
        Layers(_flattened, stem=_conv(3, 8), hidden=nn.Linear(8 * 64, 16), head=nn.Linear(16, 5)), {"stem": 8, "hidden": 16},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_can_be_pruned_is_found_and_what_cannot_is_left_alone(kind: str) -> None:
    model, expected = KINDS[kind]
    graph = trace(model, (SHAPE,), "network")
    assert {block.removeprefix("parts."): width for block, width in graph.widths.items()} == expected
    widths = {block: width // 2 for block, width in graph.widths.items()}
    assert prune(model, graph, widths)(torch.zeros(SHAPE)).shape == model(torch.zeros(SHAPE)).shape


def test_a_block_has_as_many_slices_as_every_grouped_convolution_that_makes_or_reads_it_needs() -> None:
    model, _ = KINDS["two and three groups of the same channels"]
    couplings = Couplings(model, (SHAPE,))
    assert [couplings.slices(f"parts.{name}") for name in ("stem", "pairs")] == [6, 6]
    in_line = Couplings(KINDS["grouped convolutions in a row"][0], (SHAPE,))
    assert [in_line.slices(f"parts.{name}") for name in ("stem", "one", "two")] == [4, 4, 2]


def test_numbers_of_channels_that_are_no_weights_stay_so() -> None:
    model = KINDS["numbers of channels and of columns that are no weights"][0]
    pruned = prune(model, trace(model, (SHAPE,), "network"), {"parts.stem": 5})
    assert {name: list(buffer.shape) for name, buffer in pruned.named_buffers()} == {
        "parts.numbers.factor": [5], "parts.numbers.kernel": [5, 1, 3, 3], "parts.numbers.column": [8],
    }  # fmt: skip
    assert pruned.state_dict().keys() == model.state_dict().keys()
    assert [name for name, _ in pruned.named_parameters()] == [name for name, _ in model.named_parameters()]


class Counted(nn.Module):
    """A mean that the network's own code keeps and changes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = _conv(3, 8), _conv(8, 4)
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        self.get_buffer("mean").mul_(0.9)
        return self.head(x)


def test_a_network_that_changes_its_numbers_in_place_is_pruned_without_them() -> None:
    couplings = Couplings(Counted(), (SHAPE,))
    assert [couplings.calls("stem"), couplings.blocks()] == [1, [("stem",)]]


def test_the_weights_of_what_is_added_are_no_channels() -> None:
    model = Fused()
    pruned = prune_in_order(model, trace(model, (SHAPE,), "network"), {"one": 4}, {"one": [7, 6, 5, 4, 3, 2, 1, 0]})
    assert [len(pruned.weights), pruned(torch.zeros(SHAPE)).shape] == [2, model(torch.zeros(SHAPE)).shape]


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_counted_without_a_trace_are_those_of_the_couplings(name: str) -> None:
    """On the meta device and with values."""
    found = []
    for device in ("meta", "cpu"):
        with torch.device(device):
            found.append(Couplings(build_network(name, width_multiplier=0.25), ((1, 3, 64, 64),)).blocks())
    assert found[0] == found[1] != []


class Piece:
    """Something a random network is made of: takes `width` channels and leaves as many as `width` says afterwards."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.layers: dict[str, nn.Module] = {}
        self.steps: list[Callable[[nn.ModuleDict, Tensor], Tensor]] = []
        self.width = 3

    def add(self, layer: nn.Module) -> str:
        name = f"layer{len(self.layers)}"
        self.layers[name] = layer
        return name

    def unit(self, inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> str:
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
        parts: list[nn.Module] = [conv]
        if self.draw(st.booleans()):
            parts.append(nn.BatchNorm2d(outputs))
        parts.append(self.draw(st.sampled_from((nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Identity)))())
        return self.add(nn.Sequential(*parts))

    def some_width(self) -> int:
        return self.draw(st.integers(2, 12))

    def plain(self) -> None:
        name, self.width = self.unit(self.width, width := self.some_width(), 3), width
        self.steps.append(lambda p, x: p[name](x))

    def depthwise(self) -> None:
        name = self.unit(self.width, self.width, 3, groups=self.width)
        self.steps.append(lambda p, x: p[name](x))

    def grouped(self) -> None:
        name, self.width = self.unit(self.width, 2 * self.width, groups=self.width), 2 * self.width
        self.steps.append(lambda p, x: p[name](x))

    def in_groups(self) -> None:
        groups = self.draw(st.integers(2, 3))
        before, after = (groups * self.draw(st.integers(2, 4)) for _ in range(2))
        feeds, grouped = self.unit(self.width, before), self.unit(before, after, 3, groups)
        self.width = after
        self.steps.append(lambda p, x: p[grouped](p[feeds](x)))

    def grouped_residual(self) -> None:
        if self.width % 2 == 0 and self.width >= 4:
            name = self.unit(self.width, self.width, groups=2)
            self.steps.append(lambda p, x: functional.relu(x + p[name](x)))

    def residual(self) -> None:
        inner = self.some_width()
        first, second = self.unit(self.width, inner), self.unit(inner, self.width, 3)
        self.steps.append(lambda p, x: functional.relu(x + p[second](p[first](x))))

    def concatenation(self) -> None:
        left, right = self.some_width(), self.some_width()
        one, two = self.unit(self.width, left, 3), self.unit(self.width, right)
        keeps, self.width = self.draw(st.booleans()), left + right + (before := self.width)
        if not keeps:
            self.width -= before
        self.steps.append(lambda p, x: torch.cat([p[one](x), p[two](x), *([x] if keeps else [])], 1))

    def gate(self) -> None:
        inner = self.some_width()
        reduce, expand = self.add(nn.Conv2d(self.width, inner, 1)), self.add(nn.Conv2d(inner, self.width, 1))
        self.steps.append(
            lambda p, x: x * torch.sigmoid(p[expand](functional.relu(p[reduce](functional.adaptive_avg_pool2d(x, 1)))))
        )

    def one_channel(self) -> None:
        name, self.width = self.unit(self.width, 1), 1
        self.steps.append(lambda p, x: p[name](x))

    def transposed(self) -> None:
        name = self.add(nn.ConvTranspose2d(self.width, width := self.some_width(), 2, stride=2, bias=False))
        self.width = width
        self.steps.append(lambda p, x: functional.max_pool2d(functional.relu(p[name](x)), 2))

    def twice(self) -> None:
        name = self.unit(self.width, self.width)
        self.steps.append(lambda p, x: p[name](p[name](x)))

    def network(self) -> nn.Module:
        head = self.add(nn.Linear(self.width * (16 if (flat := self.draw(st.booleans())) else 1), 3))
        steps = list(self.steps)

        def forward(p: nn.ModuleDict, x: Tensor) -> Tensor:
            for step in steps:
                x = step(p, x)
            return p[head](x.flatten(1) if flat else x.mean((2, 3)))  # type: ignore[no-any-return]

        return Layers(forward, **self.layers)


PIECES = (
    Piece.plain, Piece.depthwise, Piece.grouped, Piece.in_groups, Piece.grouped_residual, Piece.residual, Piece.concatenation,
    Piece.gate, Piece.one_channel, Piece.transposed, Piece.twice,
)  # fmt: skip
SMALL = (1, 3, 4, 4)


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    pieces = Piece(draw)
    pieces.plain()
    for piece in draw(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5)):
        piece(pieces)
    return pieces.network()


def _last_of_slices(channels: int, slice_width: int, kept: int) -> list[int]:
    return [channel for channel in range(channels) if channel % slice_width >= kept]


def _silence(model: nn.Module, graph: Graph, widths: dict[str, int]) -> None:
    """Make weights of zero of as many channels as the widths take away, the last of each slice; the kept ones are the strongest."""
    couplings = Couplings(deepcopy(model), (SMALL,))
    modules = dict(model.named_modules())
    with torch.no_grad():
        for module in modules.values():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        for block, full in graph.widths.items():
            slices, coupled = couplings.slices(block), couplings.coupled(block)
            # a part has some of the slices: it is one of the layers of a concatenation to which the block is added
            for name in coupled.members + coupled.parts:
                layer = modules[name]
                weight = layer.get_parameter("weight")
                weight = weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight
                gone = _last_of_slices(len(weight), full // slices, widths[block] // slices)
                weight[gone] = 0
                if layer.bias is not None:
                    layer.get_parameter("bias")[gone] = 0


# an example takes seconds, most of them in torch's exporter: few are tried, and a failing one is shown as it is
@pytest.mark.slow
@settings(max_examples=6, deadline=None, phases=(Phase.reuse, Phase.generate), suppress_health_check=list(HealthCheck))
@given(networks(), st.integers(0, 2**16))
def test_a_random_network_narrows_as_its_graph_says_and_loses_nothing_with_silent_channels(model: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    graph = trace(model.eval(), (SMALL,), "network")
    chance = random.Random(seed)
    # not to 1, where a depthwise layer is an ordinary one to the runtime
    widths = {block: chance.choice([width for width in found if width > 1]) for block, found in possible_widths(graph, 1).items()}
    _silence(model, graph, widths)
    pruned = prune(model, graph, widths)
    images = torch.randn(2, *SMALL[1:])
    torch.testing.assert_close(pruned(images), model(images), rtol=1e-4, atol=1e-4)
    assert trace(pruned, (SMALL,), "network").layers == graph.at_widths(widths).layers
    reshape_like(model, graph, widths).load_state_dict(pruned.state_dict())


def test_queries_and_keys_of_another_width_than_the_values_are_a_block_of_their_own() -> None:
    found = Couplings(sagan().eval(), ((1, 3, 32, 32),)).blocks()
    assert ("1.q", "1.k") in {tuple(sorted(block, reverse=True)) for block in found}
    assert any({"0.0", "1.v"} == set(block) for block in found)


def test_a_layer_with_more_channels_behind_a_padding_is_a_part() -> None:
    couplings = Couplings(blazeface().eval(), ((1, 3, 32, 32),))
    found = couplings.coupled("0.0")
    assert not found.reason
    assert (set(found.members), set(found.parts)) == ({"0.0", "1.body.1"}, {"2.body.1", "3.body.1"})
    assert couplings.slices("0.0") == 1


def test_others_have_torch_pruning_as_it_is() -> None:
    places = [(index_mapping, name) for name in vars(index_mapping) if name.startswith("update_")]
    Couplings(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)), ((1, 3, 4, 4),)).coupled("0")
    assert {getattr(place, name).__module__ for place, name in places} == {index_mapping.__name__}
    assert torch_pruning.dependency.graph.Group.__module__ == torch_pruning.dependency.group.__name__


def test_queries_and_keys_are_apart_from_values_that_keys_are_multiplied_with_first() -> None:
    couplings = Couplings(linear_attention(), ((1, 3, 32, 32),))
    assert couplings.coupled("body.0.q").members == ("body.0.q", "body.0.k")
    assert couplings.coupled("body.0.v").members == ("body.0.v",)


def test_what_fails_in_the_users_code_without_a_channel_is_told() -> None:
    model, _ = KINDS["a width written into the network's own code"]
    assert "expected input[1, 16, 8, 8]" in trace_with_reasons(model, (SHAPE,), "network").fixed["parts.stem"]
