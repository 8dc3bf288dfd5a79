"""Super-networks: dropping channels is cutting them, image by image, and a training that was interrupted is the same training."""

from __future__ import annotations

import os
import random
import signal
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_batch_norm import part
from test_couplings import KINDS, SHAPE, SMALL, networks
from torch import nn

from netadapt.networks import build_network
from netadapt.pruning.batch_norm import reestimate
from netadapt.pruning.couplings import Couplings
from netadapt.pruning.prune import prune, prune_in_order
from netadapt.pruning.tracing import trace
from netadapt.pruning.trial import randomised
from netadapt.supernet.dropout import OrderedDropout, blocks_to_drop, order_of
from netadapt.supernet.ranking import kendall
from netadapt.supernet.training import train_supernet
from netadapt.training.recipe import TrainSettings
from netadapt.training.trainer import train
from profiler.layers.channels import possible_widths
from profiler.layers.graph import Graph

MANY = (
    "sources of concatenations, one read by several", "a gate of linear layers", "two and three groups of the same channels",
    "a layer added to a concatenation", "pieces of a layer's output", "a convolution whose pixels are flattened",
    "a softmax over channels",
)  # fmt: skip
TRAINING = TrainSettings(learning_rate=0.05, steps=7, batch_size=8, augment=False)


@cache
def graph_of_line() -> Graph:
    return trace(model_of_line(), (SMALL,), "line")


def model_of_line() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 2),
    ).eval()  # fmt: skip


def line() -> tuple[nn.Sequential, Graph]:
    """Two convolutions with batch normalisation and a classifier, for images of 4 pixels."""
    return model_of_line(), graph_of_line()


def dropout_of(model: nn.Module, graph: Graph) -> OrderedDropout:
    return OrderedDropout(model, graph, possible_widths(graph, 4), {})


@pytest.mark.parametrize("kind", MANY)
def test_every_block_can_be_dropped_but_one_whose_channels_meet(kind: str) -> None:
    graph = trace(KINDS[kind][0], (SHAPE,), "network")
    meeting = {"parts.mixed"} if kind == "a softmax over channels" else set()
    assert set(graph.widths) - set(blocks_to_drop(KINDS[kind][0], graph)) == meeting


@pytest.mark.slow
@settings(max_examples=6, deadline=None, phases=(Phase.reuse, Phase.generate), suppress_health_check=list(HealthCheck))
@given(networks(), st.integers(0, 2**16))
def test_each_image_of_a_random_network_gets_what_the_network_cut_to_its_widths_gives(model: nn.Module, seed: int) -> None:
    graph = trace(model.eval(), (SMALL,), "network")
    chance, choices = random.Random(seed), possible_widths(graph, 1)
    torch.manual_seed(seed)
    images = torch.randn(3, *SMALL[1:])
    model = randomised(model, images)
    couplings = Couplings(randomised(model, images), (SMALL,))
    order = {}
    for block, full in graph.widths.items():
        positions = full // couplings.slices(block)
        order[block] = tuple(chance.sample(range(positions), positions))
    widths = [{block: chance.choice(found) for block, found in choices.items()} for _ in images]
    dropout = OrderedDropout(model, graph, choices, order)
    dropout.set_widths(widths)
    with torch.no_grad(), dropout.on(model):
        found = model(images)
    for image, of_image, outputs in zip(images, widths, found, strict=True):
        with torch.no_grad():
            cut = prune_in_order(model, graph, of_image, order)(image[None])[0]
        torch.testing.assert_close(outputs, cut, rtol=1e-3, atol=1e-4)


def test_at_full_widths_it_is_the_plain_network() -> None:
    model, graph = line()
    images, dropout = torch.randn(2, *SMALL[1:]), dropout_of(model, graph)
    dropout.set_widths([graph.widths, {}])
    with torch.no_grad(), dropout.on(model):
        assert torch.equal(model(images), expected := model(images))
    with torch.no_grad():
        assert torch.equal(model(images), expected)


def test_statistics_estimated_in_the_super_network_are_those_of_the_cut_network() -> None:
    model, graph = line()
    widths = {"0": 4, "3": 8}
    cut, dropout = prune_in_order(model, graph, widths, {}), dropout_of(model, graph)
    dropout.set_widths([widths])
    with dropout.on(model):
        reestimate(model, part(), 2, seed=1, batch_size=8)
    reestimate(cut, part(), 2, seed=1, batch_size=8)
    for name, value in cut.named_buffers():
        if name.endswith(("mean", "var")):
            torch.testing.assert_close(model.get_buffer(name)[: len(value)], value)


def test_a_dropped_channel_learns_nothing_from_its_image() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 2))
    graph = trace(model, (SMALL,), "network")
    dropout = dropout_of(model, graph)
    dropout.set_widths([{"0": 4}])
    with dropout.on(model):
        torch.autograd.backward(model(torch.randn(SMALL)).sum())
    gradient = model.get_submodule("0").get_parameter("weight").grad
    assert gradient is not None
    assert [bool(filters.any()) for filters in gradient] == [True] * 4 + [False] * 4


def test_widths_are_drawn_for_each_image_and_block_by_itself() -> None:
    model, graph = line()
    dropout = dropout_of(model, graph)
    dropout.draw(1000, torch.Generator().manual_seed(0))
    assert dropout._kept is not None
    first, second, _ = dropout._kept.unbind(1)
    assert {int(count) for count in first} == {4, 8}
    assert {int(count) for count in second} == {4, 8, 12}
    both = [bool(narrow) for narrow in second[first == 4] == 4]
    assert 0.25 < sum(both) / len(both) < 0.42


def test_the_narrowest_widths_are_drawn_last() -> None:
    model, graph = line()
    dropout, drawn = dropout_of(model, graph), []
    for share in (0.0, 0.5, 1.0):
        dropout.draw(100, torch.Generator().manual_seed(0), share)
        assert dropout._kept is not None
        drawn.append({int(count) for count in dropout._kept[:, 1]})
    assert drawn == [{12}, {8, 12}, {4, 8, 12}]


def test_sorted_by_importance_a_slice_keeps_the_filters_that_pruning_keeps() -> None:
    model, graph = line()
    order = order_of(model, graph, possible_widths(graph, 4), "l2", None)
    sliced, pruned = prune_in_order(model, graph, {"3": 8}, order), prune(model, graph, {"3": 8})
    images = torch.randn(2, *SMALL[1:])
    assert torch.equal(sliced(images), pruned(images))


def test_an_order_is_whole_for_a_criterion_that_refits_layers_and_the_model_stays() -> None:
    model, graph = line()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    order = order_of(model, graph, possible_widths(graph, 4), "reconstruction", part().batch(torch.arange(8))[0])
    assert {block: sorted(positions) for block, positions in order.items()} == {"0": list(range(8)), "3": list(range(12))}
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_an_interrupted_training_that_goes_on_gives_the_same_weights(tmp_path: Path) -> None:
    weights = []
    for stops in ((), (2, 5)):
        model, graph = line()
        dropout, checkpoint = dropout_of(model, graph), tmp_path / f"{len(stops)}.pt"

        def press_at(done: int, _all: int, _loss: float, stops: tuple[int, ...] = stops) -> None:
            if done in stops:
                os.kill(os.getpid(), signal.SIGINT)

        for _ in stops:
            with pytest.raises(KeyboardInterrupt):
                train_supernet(model, dropout, part(), TRAINING, checkpoint, seed=1, progress=press_at)
            model, _ = line()  # of another process, all that is left is the checkpoint
        train_supernet(model, dropout, part(), TRAINING, checkpoint, seed=1, progress=press_at)
        weights.append(model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_narrow_widths_are_drawn_from_the_warm_up_on() -> None:
    weights = []
    for warm_up in (0.0, 1.0):
        model, graph = line()
        dropout, nowhere = dropout_of(model, graph), Path("unused.pt")
        train_supernet(model, dropout, part(), TRAINING, nowhere, seed=1, progress=lambda *_: None, warm_up=warm_up)
        weights.append(model.get_submodule("3").get_parameter("weight"))
    plain, _ = line()
    train(plain, part(), TRAINING, seed=1)
    assert not torch.equal(*weights)
    assert torch.equal(weights[1], plain.get_submodule("3").get_parameter("weight"))


def test_training_changes_what_every_width_computes() -> None:
    model, graph = line()
    narrow = prune_in_order(model, graph, {"0": 4, "3": 4}, {})
    train_supernet(
        model, dropout_of(model, graph), part(), TRAINING, Path("unused.pt"), seed=1, progress=lambda *_: None
    )  # fmt: skip
    trained = prune_in_order(model, graph, {"0": 4, "3": 4}, {})
    before, after = (network.get_submodule("3").get_parameter("weight") for network in (narrow, trained))
    assert not torch.equal(before, after)
    assert not model.training


def test_layers_of_transformers_keep_their_widths_in_the_super_network_where_channels_are_normalised_together() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    graph = trace(layers, (SMALL,), "network")
    assert list(graph.widths) == ["0", "3"]
    assert blocks_to_drop(layers, graph) == ("3",)


@pytest.mark.slow
def test_blocks_of_a_whole_network_can_be_dropped() -> None:
    with torch.random.fork_rng():
        model = build_network("mobilenet_v2", width_multiplier=0.25, resolution=32, classes=10)
    graph = trace(model, ((1, 3, 32, 32),), "mobilenet_v2")
    assert blocks_to_drop(model, graph) == tuple(graph.widths)


@pytest.mark.parametrize(
    ("ones", "others", "expected"),
    [([1, 2, 3], [2, 4, 9], 1.0), ([1, 2, 3], [3, 2, 1], -1.0), ([1, 2, 3, 4], [1, 3, 2, 4], 2 / 3), ([1, 1], [1, 2], 0.0)],
)
def test_the_rank_correlation_counts_pairs_in_the_same_order(ones: list[float], others: list[float], expected: float) -> None:
    assert kendall(ones, others) == pytest.approx(expected)
