"""Channels in groups: convolutions that read, make and interleave them, and what is put at the places of others' maxima."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from more_families import enet, fastvit, shufflenet_v1
from sharing_families import NOT_IN_TFLITE, SHARING, grouped_decoder, grouped_dense, multiplier, segnet
from torch import Tensor, nn

from netadapt.pruning.couplings import Couplings
from netadapt.pruning.importance.l2 import filters_of

SHAPES = ((1, 3, 32, 32),)
MAKERS = {name: make for name, (make, _) in SHARING.items()} | NOT_IN_TFLITE | {"fastvit": fastvit, "shufflenet v1": shufflenet_v1}


def narrowed(model: nn.Module) -> nn.Module:
    """A copy in which each block has lost the first half of each of its slices."""
    couplings = Couplings(narrow := deepcopy(model), SHAPES)
    for block, *_ in couplings.blocks():
        width, slices = len(filters_of(narrow.get_submodule(block))), couplings.slices(block)
        size = width // slices
        couplings.remove(block, [start + place for start in range(0, width, size) for place in range(size // 2)])
    couplings.restore_buffers()
    return narrow


def is_part(small: Tensor, whole: Tensor) -> bool:
    """True if the numbers are those at some indices of each axis, in their order; `whole` has no number twice."""
    order = whole.flatten().argsort()
    found = order[torch.searchsorted(whole.flatten()[order], small.flatten()).clamp(max=whole.numel() - 1)]
    places = torch.stack(torch.unravel_index(found, whole.shape))
    sizes = [len(axis.unique()) for axis in places]
    return torch.equal(whole.flatten()[found], small.flatten()) and tuple(sizes) == tuple(small.shape)


@pytest.mark.parametrize("name", MAKERS)
def test_the_weights_of_a_narrower_network_are_parts_of_the_old_ones(name: str) -> None:
    torch.manual_seed(0)
    model = MAKERS[name]().eval()
    with torch.no_grad():
        for weight in model.parameters():  # no number twice, and all of them exact
            weight.copy_(torch.randperm(weight.numel()).reshape(weight.shape) / 2 ** math.ceil(math.log2(weight.numel() + 1)))
    narrow = narrowed(model)
    old, new = (dict(network.named_parameters(remove_duplicate=False)) for network in (model, narrow))
    assert old.keys() == new.keys()
    assert [key for key, weight in new.items() if not is_part(weight.detach(), old[key].detach())] == []
    assert sum(weight.numel() for weight in new.values()) < sum(weight.numel() for weight in old.values())


@pytest.mark.parametrize("name", MAKERS)
def test_a_narrower_network_trains(name: str) -> None:
    torch.manual_seed(0)
    narrow = narrowed(MAKERS[name]()).train()
    optimiser = torch.optim.SGD(narrow.parameters(), 0.01)
    before = {name: weight.detach().clone() for name, weight in narrow.named_parameters()}
    narrow(torch.randn(2, *SHAPES[0][1:])).square().mean().backward()
    optimiser.step()
    moved = {name for name, weight in narrow.named_parameters() if not torch.equal(weight, before[name])}
    assert {name for name in before if name.endswith("weight") and before[name].ndim > 1} <= moved


def test_a_depthwise_layer_with_a_multiplier_loses_all_that_it_makes_of_a_channel() -> None:
    model = multiplier()
    couplings = Couplings(narrow := deepcopy(model), SHAPES)
    couplings.remove("0.0", [1, 15])
    kept = [channel for channel in range(32) if channel not in (2, 3, 30, 31)]
    layer, reader = narrow[1].depthwise[0], narrow[1].pointwise[0]
    assert (layer.groups, layer.in_channels, layer.out_channels) == (14, 14, 28)
    assert torch.equal(layer.weight, model[1].depthwise[0].weight[kept])
    assert torch.equal(reader.weight, model[1].pointwise[0].weight[:, kept])


def test_a_layer_to_which_several_of_each_channel_are_added_is_a_part() -> None:
    couplings = Couplings(fastvit(), SHAPES)
    found = couplings.coupled("0.convs.0.0")
    assert (found.reason, found.parts, couplings.slices("0.convs.0.0")) == ("", ("4.d",), 1)


def test_a_transposed_convolution_in_groups_loses_as_many_channels_of_each() -> None:
    model = grouped_decoder()
    couplings = Couplings(narrow := deepcopy(model), SHAPES)
    couplings.remove("up.0", [2, 8, 14, 20])  # of four groups of six
    couplings.remove("down.1.0", [7, 15, 23, 31])  # of four groups of eight
    kept = [channel for channel in range(32) if channel % 8 != 7]
    assert torch.equal(narrow.up[0].weight, model.up[0].weight[kept][:, [0, 1, 3, 4, 5]])
    assert narrow(torch.zeros(SHAPES[0])).shape == model(torch.zeros(SHAPES[0])).shape


def test_the_parts_of_a_concatenation_lose_as_many_channels_of_each_group_that_is_read() -> None:
    couplings = Couplings(grouped_dense(), SHAPES)
    assert couplings.coupled("0.0").members == ("0.0", "1.two.0")
    assert couplings.slices("0.0") == 4


def test_groups_behind_a_shuffle_need_channels_of_each_group_before_it() -> None:
    couplings = Couplings(model := shufflenet_v1(), SHAPES)
    assert couplings.slices("1.one") == 4  # two groups before it, and two behind
    couplings.remove("1.one", [0, 3, 6, 9])
    assert model.eval()(torch.zeros(SHAPES[0])).shape == (1, 10)


def test_a_layer_keeps_its_width_of_which_each_place_is_a_whole_group_behind_the_shuffle() -> None:
    couplings = Couplings(shufflenet_v1(), SHAPES)  # four groups of four channels, before the shuffle and behind it
    assert couplings.coupled("3.one").reason == "its channels would not go in equal parts"


def test_torchs_own_shuffle_is_followed_as_one_of_views_is() -> None:
    def network(shuffle: nn.Module) -> nn.Module:
        grouped = (nn.Conv2d(12, 12, 1, groups=2), shuffle, nn.Conv2d(12, 12, 1, groups=2))
        return nn.Sequential(nn.Conv2d(3, 12, 1), *grouped, nn.Conv2d(12, 4, 1))

    class OfViews(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.unflatten(1, (2, -1)).permute(0, 2, 1, 3, 4).flatten(1, 2)

    for shuffle in (nn.ChannelShuffle(2), OfViews()):
        couplings = Couplings(network(shuffle), SHAPES)
        assert [couplings.slices(name) for name in ("0", "1")] == [2, 4]


def test_what_is_put_at_the_places_of_maxima_has_as_many_channels() -> None:
    assert Couplings(enet(), SHAPES).blocks() == [("a.0", "c.0"), ("b.0",)]
    assert Couplings(segnet(), SHAPES).blocks() == [("e1.0", "d2.0"), ("e2.0",), ("d1.0",)]
