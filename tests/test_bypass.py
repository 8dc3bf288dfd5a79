"""Residual branches that can be removed: width 0 is the identity, dropping one is cutting it, and a search chooses depth too."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from test_couplings import SMALL
from torch import Tensor, nn

from netadapt.export.files import export_onnx, export_tflite
from netadapt.pruning.prune import PruningError, prune_in_order
from netadapt.pruning.tracing import trace
from netadapt.pruning.trial import randomised
from netadapt.resources import open_resource
from netadapt.search.candidates import narrowest, prices_of
from netadapt.search.descent import possible_choices, sample_all
from netadapt.supernet.bypass import with_branches
from netadapt.supernet.dropout import OrderedDropout, branches_to_drop
from profiler.errors import LayerError
from profiler.formats.onnx.reader import read_onnx
from profiler.layers.graph import Graph


class Residual(nn.Module):
    """A bottleneck whose input is added to what it makes."""

    def __init__(self, channels: int, *, twice: bool = False) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, 16, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()) if twice else nn.Identity()
        self.last = nn.Sequential(nn.Conv2d(8 if twice else 16, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = features + self.last(self.second(self.first(features)))
        return changed


class Rectified(Residual):
    """The same with a ReLU behind the addition."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).relu()


def network() -> nn.Sequential:
    """A stem, three residual branches, of which the last has two blocks, and a classifier, for images of 4 pixels."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), Rectified(12), Residual(12), Residual(12, twice=True), nn.Conv2d(12, 16, 1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2),
    ).eval()  # fmt: skip


@cache
def graph() -> Graph:
    return with_branches(network(), trace(network(), (SMALL,), "network"))


FIRST, SECOND, THIRD = "2.first.0", "3.first.0", "4.first.0"


def test_a_residual_with_a_block_of_its_own_is_a_branch_and_nothing_else_is() -> None:
    assert [(branch.name, branch.blocks) for branch in graph().branches] == [
        ("2", (FIRST,)), ("3", (SECOND,)), ("4", (THIRD, "4.second.0")),
    ]  # fmt: skip


def test_a_rectified_residual_is_no_branch_where_its_input_is_not_rectified() -> None:
    model = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), Rectified(12), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 2))
    assert with_branches(model, trace(model, (SMALL,), "network")).branches == ()


def test_width_zero_is_the_identity() -> None:
    model = randomised(network(), torch.randn(4, *SMALL[1:]))
    images, features = torch.randn(2, *SMALL[1:]), torch.rand(2, 12, 4, 4)
    removed = prune_in_order(model, graph(), {SECOND: 0}, {})
    assert removed.get_submodule("3")(features) is features
    model[3] = nn.Identity()
    assert torch.equal(removed(images), model(images))


def test_without_a_branch_the_graph_is_that_of_the_model_without_it() -> None:
    widths = {FIRST: 0, THIRD: 0, SECOND: 4}
    predicted = graph().at_widths(widths)
    traced = trace(prune_in_order(network(), graph(), widths, {}), (SMALL,), "network")
    assert [node.layer for node in predicted.nodes] == [node.layer for node in traced.nodes]
    assert predicted.macs == traced.macs


def test_all_blocks_of_a_removed_branch_have_width_zero_and_no_way_back() -> None:
    removed = graph().at_widths({THIRD: 0})
    assert (removed.widths[THIRD], removed.widths["4.second.0"]) == (0, 0)
    assert removed.at_widths(removed.widths) == removed
    with pytest.raises(LayerError, match=r"block 4\.first\.0 is removed and cannot have 8 channels"):
        removed.at_widths({THIRD: 8})


def test_only_the_first_block_of_a_branch_has_width_zero_by_itself() -> None:
    with pytest.raises(LayerError, match="cannot have 0 channels"):
        graph().at_widths({"4.second.0": 0})
    with pytest.raises(PruningError, match=r"block 5 has 16 channels and cannot be pruned to 0; choose 1 to 16"):
        prune_in_order(network(), graph(), {"5": 0}, {})


def test_a_graph_with_removed_branches_is_the_same_after_a_file() -> None:
    removed = graph().at_widths({FIRST: 0})
    assert Graph.from_dict(json.loads(json.dumps(removed.to_dict()))) == removed
    assert removed.branches[1:] == graph().branches[2:]


def test_a_network_that_is_cut_twice_is_the_one_that_is_cut_at_once() -> None:
    once = prune_in_order(network(), graph(), {FIRST: 0, SECOND: 8}, {})
    half = prune_in_order(network(), graph(), {FIRST: 0}, {})
    twice = prune_in_order(half, graph().at_widths({FIRST: 0}), {FIRST: 0, SECOND: 8}, {})
    assert all(torch.equal(value, twice.state_dict()[name]) for name, value in once.state_dict().items())


def test_each_image_gets_what_the_network_cut_to_its_widths_gives() -> None:
    images = torch.randn(8, *SMALL[1:])
    model, choices, chance = randomised(network(), images), possible_choices(graph(), 4, 4), random.Random(0)
    widths = [{block: chance.choice(found) for block, found in choices.items()} for _ in images]
    assert {0} < {of_image[FIRST] for of_image in widths}
    dropout = OrderedDropout(model, graph(), choices, {})
    dropout.set_widths(widths)
    with torch.no_grad(), dropout.on(model):
        found = model(images)
    for image, of_image, outputs in zip(images, widths, found, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(outputs, prune_in_order(model, graph(), of_image, {})(image[None])[0], rtol=1e-3, atol=1e-4)


def test_at_full_widths_it_is_the_plain_network() -> None:
    model, images = network(), torch.randn(2, *SMALL[1:])
    dropout = OrderedDropout(model, graph(), possible_choices(graph(), 4, 4), {})
    dropout.set_widths([graph().widths, {}])
    with torch.no_grad(), dropout.on(model):
        assert torch.equal(model(images), expected := model(images))
    with torch.no_grad():
        assert torch.equal(model(images), expected)


def test_an_image_that_goes_around_a_branch_teaches_it_nothing() -> None:
    model = network()
    dropout = OrderedDropout(model, graph(), possible_choices(graph(), 4, 4), {})
    dropout.set_widths([{SECOND: 0}])
    with dropout.on(model):
        torch.autograd.backward(model(torch.randn(1, *SMALL[1:])).sum())
    weight = model.get_submodule("3.last.0").get_parameter("weight")
    assert weight.grad is not None
    assert not weight.grad.any()


def test_an_image_that_goes_around_a_branch_gives_its_statistics_the_same_as_at_full_width() -> None:
    images, means = torch.randn(2, *SMALL[1:]), []
    for width in (0, 16):
        model = network().train()
        dropout = OrderedDropout(model, graph(), possible_choices(graph(), 4, 4), {})
        dropout.set_widths([{SECOND: width}] * 2)
        with dropout.on(model), torch.no_grad():
            model(images)
        means.append(model.get_submodule("3.last.1").get_buffer("running_mean"))
    assert torch.equal(*means)


def test_going_around_each_branch_is_the_same_as_without_it() -> None:
    assert branches_to_drop(network(), graph()) == graph().branches


def test_removed_branches_are_not_priced() -> None:
    macs = {"macs": open_resource("macs", None)}
    inside = [node.layer.macs or 0 for node in graph().nodes if node.name in graph().branches[1].nodes]
    before, after = (prices_of(each, macs)["macs"] for each in (graph(), graph().at_widths({SECOND: 0})))
    assert before - after == sum(inside)


def test_a_budget_below_the_narrowest_blocks_is_within_reach_without_branches() -> None:
    resources = {"macs": open_resource("macs", None)}
    target = prices_of(narrowest(graph(), 8, 8), resources)
    plain = prices_of(narrowest(replace(graph(), branches=()), 8, 8), resources)
    assert target["macs"] < plain["macs"]
    choices = possible_choices(graph(), 8, 8)
    between = {"macs": (target["macs"] + plain["macs"]) / 2}
    found = sample_all(graph(), resources, between, choices, samples=5, blocks=9, seed=1, iteration=1)
    assert found
    assert all(0 in sample.widths.values() for sample in found)


def test_samples_remove_branches_and_never_widen_them_again() -> None:
    resources = {"macs": open_resource("macs", None)}
    now, choices = prices_of(graph(), resources)["macs"], possible_choices(graph(), 8, 8)
    found = sample_all(graph(), resources, {"macs": 0.6 * now}, choices, samples=40, blocks=5, seed=1, iteration=1)
    removing = next(sample for sample in found if sample.widths[THIRD] == 0)
    assert (removing.widths["4.second.0"], set(removing.blocks) >= {THIRD, "4.second.0"}) == (0, True)
    after = graph().at_widths(removing.widths)
    again = sample_all(after, resources, {"macs": 0.9 * removing.prices["macs"]}, choices, samples=5, blocks=5, seed=1, iteration=2)
    assert again
    assert all(sample.widths[THIRD] == 0 and THIRD not in sample.blocks for sample in again)


def test_exported_to_onnx_nothing_of_a_removed_branch_is_left(tmp_path: Path) -> None:
    model = prune_in_order(randomised(network(), torch.randn(4, *SMALL[1:])), graph(), {FIRST: 0, SECOND: 0, THIRD: 0}, {})
    export_onnx(model, (SMALL,), tmp_path / "a.onnx")  # raises an error where its outputs are not PyTorch's
    assert [layer.op for layer in read_onnx(tmp_path / "a.onnx").layers] == [
        "conv2d",
        "conv2d",
        "global_avg_pool",
        "flatten",
        "fully_connected",
    ]


@pytest.mark.slow
def test_exported_to_tflite_it_computes_the_same(tmp_path: Path) -> None:
    model = prune_in_order(randomised(network(), torch.randn(4, *SMALL[1:])), graph(), {FIRST: 0, THIRD: 0}, {})
    export_tflite(model, (SMALL,), tmp_path / "a.tflite")  # raises an error where its outputs are not PyTorch's
    assert (tmp_path / "a.tflite").stat().st_size > 0
