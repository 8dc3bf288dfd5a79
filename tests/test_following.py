"""What can be pruned behind operators without a model of their own, and why layers keep their widths."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from netadapt.export.files import export_onnx
from netadapt.pruning.counting import count_macs
from netadapt.pruning.prune import prune
from netadapt.pruning.tracing import Traced, trace_with_reasons
from profiler.formats.model_file import FORMATS
from profiler.layers.channels import nearest, possible_widths

SHAPE = (1, 3, 16, 16)


class Net(nn.Module):
    """Layers by name, and the function that calls them."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self._forward = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, images: Tensor) -> Tensor:
        return self._forward(self, images)


def chain(*between: nn.Module) -> nn.Module:
    """A convolution, these layers, another convolution and a classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), *between, nn.Conv2d(16, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )


def layer_scale(size: tuple[int, ...]) -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = functional.relu(net.stem(x))
        return net.head(functional.relu(x + net.gamma * net.two(functional.relu(net.one(x)))).mean((2, 3)))

    net = Net(forward, stem=nn.Conv2d(3, 16, 3, 2, 1), one=nn.Conv2d(16, 32, 1), two=nn.Conv2d(32, 16, 1), head=nn.Linear(16, 10))
    net.gamma = nn.Parameter(torch.full(size, 0.1))
    return net


def over_tokens(biases: bool) -> nn.Module:
    """A residual of two linear layers, whose biases begin at zero, over the patches of an image."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.norm(net.patches(x).flatten(2).transpose(1, 2))
        for up, down in ((net.up, net.down), (net.wide, net.narrow)):
            x = x + down(functional.relu(up(x)))
        return net.head(x.mean(1))

    up, down = nn.Linear(32, 64, biases), nn.Linear(64, 32, biases)
    layers = {"up": up, "down": down, "wide": deepcopy(up), "narrow": deepcopy(down)}
    net = Net(forward, patches=nn.Conv2d(3, 32, 4, 4), norm=nn.LayerNorm(32), head=nn.Linear(32, 10), **layers)
    for layer in layers.values():
        if biases:
            nn.init.zeros_(layer.bias)
    return net


def channels_last() -> nn.Module:
    """ConvNeXt's pointwise layers, which are linear layers over (n, h, w, c)."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.stem(x)
        x = x + net.down(functional.gelu(net.up(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)
        return net.head(x.mean((2, 3)))

    return Net(forward, stem=nn.Conv2d(3, 16, 4, 4), up=nn.Linear(16, 64), down=nn.Linear(64, 16), head=nn.Linear(16, 10))


def copies() -> nn.Module:
    """Two equal branches, declared in another order than they run, at two resolutions."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = functional.relu(net.stem(x))
        return net.head(torch.cat([net.large(x).mean((2, 3)), net.small(functional.max_pool2d(x, 4)).mean((2, 3))], 1))

    small = nn.Sequential(nn.Conv2d(16, 32, 1), nn.ReLU(), nn.Conv2d(32, 16, 1), nn.ReLU())
    return Net(forward, stem=nn.Conv2d(3, 16, 3, 2, 1), small=small, large=deepcopy(small), head=nn.Linear(32, 10))


def ghost() -> nn.Module:
    """A slice behind a concatenation that cuts nothing off."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = functional.relu(net.primary(x))
        x = torch.cat([x, functional.relu(net.cheap(x))], 1)[:, :24]
        return net.head(functional.relu(net.last(x)).mean((2, 3)))

    cheap = nn.Conv2d(12, 12, 3, 1, 1, groups=12)
    return Net(forward, primary=nn.Conv2d(3, 12, 3, 2, 1), cheap=cheap, last=nn.Conv2d(24, 16, 1), head=nn.Linear(16, 10))


def shuffled() -> nn.Module:
    """ShuffleNet's block: half of the channels are worked on, then both halves are interleaved."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = torch.cat([functional.relu(net.left(x)), functional.relu(net.right(x))], 1)
        for one, two in ((net.one, net.two), (net.three, net.four)):
            kept, worked = x.chunk(2, 1)
            x = torch.cat([kept, functional.relu(two(functional.relu(one(worked))))], 1)
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return net.head(x.mean((2, 3)))

    inner = {name: nn.Conv2d(8, 8, 1) for name in ("one", "two", "three", "four")}
    return Net(forward, left=nn.Conv2d(3, 8, 3, 2, 1), right=nn.Conv2d(3, 8, 3, 2, 1), head=nn.Linear(16, 10), **inner)


def halves() -> nn.Module:
    """C2f's block: one half of a layer's channels is worked on and added, and all parts are concatenated."""

    def forward(net: Net, x: Tensor) -> Tensor:
        parts = list(functional.relu(net.stem(x)).chunk(2, 1))
        parts.append(parts[-1] + functional.relu(net.three(functional.relu(net.one(parts[-1])))))
        return net.head(functional.relu(net.last(torch.cat(parts, 1))).mean((2, 3)))

    inner = {"one": nn.Conv2d(8, 12, 3, padding=1), "three": nn.Conv2d(12, 8, 1), "last": nn.Conv2d(24, 16, 1)}
    return Net(forward, stem=nn.Conv2d(3, 16, 3, 2, 1), head=nn.Linear(16, 10), **inner)


def side_by_side() -> nn.Module:
    """Two branches whose concatenation is added to what they read."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = functional.relu(net.stem(x))
        return net.head(functional.relu(x + torch.cat([net.left(x), net.right(x)], 1)).mean((2, 3)))

    branches = {"left": nn.Conv2d(24, 16, 1), "right": nn.Conv2d(24, 8, 3, padding=1)}
    return Net(forward, stem=nn.Conv2d(3, 24, 3, 2, 1), head=nn.Linear(24, 10), **branches)


def flattened() -> nn.Module:
    """Two branches side by side, of which a linear layer reads every pixel."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = functional.relu(net.stem(x))
        x = torch.cat([functional.relu(net.left(x)), functional.relu(net.right(x))], 1)
        return net.head(functional.adaptive_max_pool2d(x, 2).flatten(1))

    branches = {"left": nn.Conv2d(8, 6, 1), "right": nn.Conv2d(8, 4, 3, padding=1)}
    return Net(forward, stem=nn.Conv2d(3, 8, 3, 2, 1), head=nn.Linear(40, 10), **branches)


def heads_of_one_layer() -> nn.Module:
    """Queries, keys and values in one layer, divided among two heads, as in vision transformers."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.patches(x).flatten(2).transpose(1, 2)
        q, k, v = net.three(x).reshape(*x.shape[:2], 3, 2, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attended = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v
        return net.head((x + net.out(attended.transpose(1, 2).flatten(2))).mean(1))

    layers = {"three": nn.Linear(16, 48), "out": nn.Linear(16, 16)}
    return Net(forward, patches=nn.Conv2d(3, 16, 4, 4), head=nn.Linear(16, 10), **layers)


def heads_of_three_layers() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.patches(x).flatten(2).transpose(1, 2)
        q, k, v = (layer(x).view(*x.shape[:2], 2, -1).transpose(1, 2) for layer in (net.query, net.key, net.value))
        attended = functional.scaled_dot_product_attention(q, k, v)
        return net.head((x + net.out(attended.transpose(1, 2).flatten(2))).mean(1))

    layers = {name: nn.Linear(16, 16) for name in ("query", "key", "value", "out")}
    return Net(forward, patches=nn.Conv2d(3, 16, 4, 4), head=nn.Linear(16, 10), **layers)


def heads_of_torch() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.head(net.block(net.patches(x).flatten(2).transpose(1, 2)).mean(1))

    block = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
    return Net(forward, patches=nn.Conv2d(3, 16, 4, 4), block=block, head=nn.Linear(16, 10))


def gate_of_pixels() -> nn.Module:
    """CBAM's gate: one channel from means and maxima over channels, which multiplies all of them."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = functional.relu(net.stem(x))
        x = x * net.gate(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()
        return net.head(x.mean((2, 3)))

    return Net(forward, stem=nn.Conv2d(3, 16, 3, 2, 1), gate=nn.Conv2d(2, 1, 3, padding=1), head=nn.Linear(16, 10))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    **{
        f"{act.__name__} between": (lambda act=act: chain(act()), {"0": 16, "2": 8})
        for act in (nn.SiLU, nn.ELU, nn.Mish, nn.LeakyReLU, nn.GELU, nn.Softplus, nn.SELU)
    },
    "bilinear, aligned": (
        lambda: chain(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)), {"0": 16, "2": 8},
    ),
    "bicubic": (lambda: chain(nn.Upsample(scale_factor=2, mode="bicubic")), {"0": 16, "2": 8}),
    "reflected": (lambda: chain(nn.ReflectionPad2d(1)), {"0": 16, "2": 8}),
    "zeros counted": (lambda: chain(nn.AvgPool2d(3, 1, 1)), {"0": 16, "2": 8}),
    "groups normalised": (lambda: chain(nn.GroupNorm(4, 16), nn.ReLU()), {"0": 16, "3": 8}),
    "each channel normalised": (lambda: chain(nn.InstanceNorm2d(16, affine=True), nn.ReLU()), {"0": 16, "3": 8}),
    "scaled by a vector": (lambda: layer_scale((16, 1, 1)), {"stem": 16, "one": 32}),
    "scaled by a number": (lambda: layer_scale(()), {"stem": 16, "one": 32}),
    "biases of zero": (lambda: over_tokens(True), {"patches": 32, "up": 64, "wide": 64}),
    "no biases": (lambda: over_tokens(False), {"patches": 32, "up": 64, "wide": 64}),
    "linear over channels last": (channels_last, {"stem": 16, "up": 64}),
    "equal branches": (copies, {"stem": 16, "large.0": 32, "large.2": 16, "small.0": 32, "small.2": 16}),
    "a slice of everything": (ghost, {"primary": 12, "last": 16}),
    "a half that is added": (halves, {"stem": 16, "one": 12, "last": 16}),
    "a concatenation that is added": (side_by_side, {"stem": 24}),
    "a concatenation that is flattened": (flattened, {"stem": 8, "left": 6, "right": 4}),
    "a gate of pixels": (gate_of_pixels, {"stem": 16}),
    "heads of one layer": (heads_of_one_layer, {"patches": 16, "three": 48}),
    "heads of three layers": (heads_of_three_layers, {"patches": 16, "key": 16, "value": 16}),
    "heads of torch's module": (heads_of_torch, {"patches": 16, "block.linear1": 24}),
}  # fmt: skip


@cache
def traced(name: str) -> tuple[nn.Module, Traced]:
    torch.manual_seed(0)
    model = NETWORKS[name][0]().eval()
    return model, trace_with_reasons(model, (SHAPE,), name)


def narrower(name: str) -> dict[str, int]:
    """About three fifths of every block's width."""
    return {block: nearest(widths, 0.6 * widths[-1]) for block, widths in possible_widths(traced(name)[1].graph, 1).items()}


SOME = 6
EACH = [
    name if place % (len(NETWORKS) // SOME) == 0 else pytest.param(name, marks=pytest.mark.slow)
    for place, name in enumerate(NETWORKS)
]
"""Each takes seconds in PyTorch's exporter: a few are tried in the default run, all of them in the slow one."""


@pytest.mark.parametrize("name", EACH)
def test_every_layer_but_the_last_is_in_a_block(name: str) -> None:
    _, found = traced(name)
    assert found.graph.widths == NETWORKS[name][1]
    assert set(found.fixed.values()) == {"it makes an output of the network"}


@pytest.mark.parametrize("name", EACH)
def test_the_macs_of_the_narrowed_graph_are_those_of_the_narrowed_network(name: str) -> None:
    model, found = traced(name)
    widths = narrower(name)
    assert found.graph.at_widths(widths).macs == count_macs(prune(model, found.graph, widths), (SHAPE,))


@pytest.mark.parametrize("name", EACH)
def test_the_narrowed_network_computes_the_same_in_its_file(name: str, tmp_path: Path) -> None:
    model, found = traced(name)
    export_onnx(prune(model, found.graph, narrower(name)), (SHAPE,), tmp_path / "narrow.onnx")


@pytest.mark.parametrize("name", EACH)
def test_the_narrowed_graph_is_written_and_runs(name: str) -> None:
    graph = traced(name)[1].graph.at_widths(narrower(name))
    session = ort.InferenceSession(FORMATS["onnx"].write(graph), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {session.get_inputs()[0].name: torch.zeros(SHAPE).numpy()})
    assert scores.shape == (1, 10)


def test_groups_that_are_normalised_stay_whole() -> None:
    assert possible_widths(traced("groups normalised")[1].graph, 1)["0"] == (4, 8, 12, 16)


def test_heads_lose_the_same_channels_each() -> None:
    assert possible_widths(traced("heads of one layer")[1].graph, 1)["three"][:3] == (6, 12, 18)
    assert possible_widths(traced("heads of torch's module")[1].graph, 1)["patches"][:3] == (2, 4, 6)


def test_a_layer_that_is_added_to_a_half_has_half_of_its_width() -> None:
    graph = traced("a half that is added")[1].graph
    assert graph.layer_at("three", {"stem": 10}).out_channels == 5


def test_a_convolution_of_sequences_is_pruned_behind_one_of_images() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.head(functional.relu(net.sequence(functional.relu(net.stem(x)).mean(2))).mean(2))

    network = Net(forward, stem=nn.Conv2d(3, 16, 3), sequence=nn.Conv1d(16, 8, 3), head=nn.Linear(8, 10))
    found = trace_with_reasons(network.eval(), (SHAPE,), "sequence")
    assert found.graph.widths == {"stem": 16, "sequence": 8}
    narrow = {"stem": 10, "sequence": 5}
    assert found.graph.at_widths(narrow).macs == count_macs(prune(network, found.graph, narrow), (SHAPE,))


class Tokens(nn.Module):
    """A linear layer over the transposed features of an image, which onnxruntime executes as one operator."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.linear, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 12, bias=False), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.linear(self.stem(x).flatten(2).transpose(1, 2))
        logits: Tensor = self.head(tokens.relu().mean(1))
        return logits


def test_a_layer_that_the_runtime_joins_with_others_is_told() -> None:
    found = trace_with_reasons(Tokens().eval(), (SHAPE,), "tokens")
    assert found.fixed["linear"] == "onnxruntime joins it with other operators"
    assert found.graph.widths == {"stem": 16}


def test_a_shuffle_fixes_what_feeds_it_and_says_so() -> None:
    found = trace_with_reasons(shuffled().eval(), (SHAPE,), "shuffled")
    assert set(found.graph.widths) >= {"one", "three"}
    assert found.fixed.keys() >= {"left", "right", "two", "four"} - set(found.graph.widths)
