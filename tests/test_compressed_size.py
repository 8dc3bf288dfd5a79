"""Sizes as Deep Compression stores networks: what is decoded, published sizes, and estimates from widths."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import in_a_row, mobilenet_v1
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netadapt.resources import open_goals, open_resource, parse_budgets
from netadapt.resources.compressed import CONVOLUTION, Coding, Compressed, stored_weights
from netadapt.weight_pruning.compressed_size import compressed, compressed_layer, decoded, encoded, shared_values
from profiler.layers.layer import fully_connected
from profiler.modelled.densities import Densities, LayerDensity, write_densities
from profiler.tables.build_modelled import build_modelled
from profiler.tables.plan import Plan
from profiler.tables.table import load_table

LENET_300 = {"fc1": (784, 300, 0.08), "fc2": (300, 100, 0.09), "fc3": (100, 10, 0.26)}
"""The inputs, outputs and densities of the layers of LeNet-300-100 in Han et al. (2016)."""
SIX_AND_FIVE = Coding(6, 5)


def sparse(shape: tuple[int, ...], density: float, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    draws = np.random.default_rng(seed)
    weights = draws.normal(size=shape) + np.sign(draws.normal(size=shape))  # small ones are those that were pruned
    return (weights * (draws.random(shape) < density)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 20), max_size=300))
def test_symbols_are_decoded_as_they_were_encoded(symbols: list[int]) -> None:
    values = np.array(symbols, dtype=np.int64)
    assert np.array_equal(decoded(encoded(values, 21)), values)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=2, max_size=300))
def test_a_huffman_code_takes_at_most_a_bit_more_than_the_entropy(symbols: list[int]) -> None:
    counts = np.bincount(symbols)
    shares = counts[counts > 0] / len(symbols)
    entropy = -float((shares * np.log2(shares)).sum())
    code = encoded(np.array(symbols, dtype=np.int64), 21)
    used = float((code.lengths[: len(counts)] * counts).sum()) / len(symbols)
    assert entropy <= used + 1e-9
    assert used <= entropy + 1 + 1e-9


@pytest.mark.parametrize("density", [0.0, 0.001, 0.1, 0.9, 1.0])
@pytest.mark.parametrize("coding", [CONVOLUTION, Coding(2, 1)])
def test_weights_are_decoded_with_all_their_zeros(density: float, coding: Coding) -> None:
    weights = sparse((40, 16, 3, 3), density)
    layer = compressed_layer(weights, coding)
    assert np.array_equal(layer.weights() == 0, weights == 0)
    assert len(np.unique(layer.weights())) <= coding.values


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.floats(0, 1))
def test_no_layer_takes_more_than_its_weights_as_they_are(count: int, density: float) -> None:
    layer = compressed_layer(sparse((count,), density), CONVOLUTION)
    assert layer.bits <= 32 * count


def test_a_layer_of_few_weights_is_kept_exactly_and_shares_no_values() -> None:
    weights = sparse((1, 1, 3, 3), 1.0)
    layer = compressed_layer(weights, CONVOLUTION)
    assert np.array_equal(layer.weights(), weights)
    assert (layer.bits, layer.shared_values) == (9 * 32, None)


def test_values_that_fit_into_the_list_are_kept_exactly() -> None:
    weights = np.array([0.5, -0.25, 0, 0.5, 3], dtype=np.float32)
    assert np.array_equal(compressed_layer(weights, Coding(2, 2)).weights(), weights)


def test_each_weight_becomes_the_nearest_shared_value() -> None:
    weights = sparse((500,), 1.0)
    shared, places = shared_values(weights, 7)
    assert np.array_equal(places, np.abs(weights[:, None] - shared).argmin(axis=1))


def test_more_shared_values_err_less() -> None:
    weights = sparse((1000,), 1.0)
    errors = []
    for count in (3, 15, 63):
        shared, places = shared_values(weights, count)
        errors.append(float(np.square(shared[places] - weights).mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01 * errors[0]


def lenet_300() -> nn.Sequential:
    layers = [nn.Linear(inputs, outputs) for inputs, outputs, _ in LENET_300.values()]
    for place, (layer, (*_, density)) in enumerate(zip(layers, LENET_300.values(), strict=True)):
        layer.weight.data = torch.from_numpy(sparse(tuple(layer.weight.shape), density, place))
    return nn.Sequential(*layers)


def test_lenet_300_has_its_published_size() -> None:
    found = compressed(lenet_300(), {str(place): SIX_AND_FIVE for place in range(3)})
    assert found.original_bytes == pytest.approx(1_070_000, rel=0.01)
    assert found.original_bytes / found.bytes_without_huffman == pytest.approx(32, rel=0.05)
    # 40 times, 27 kB; the trained weights, which we do not have, are shared less equally than random ones
    assert found.size_bytes == pytest.approx(27_000, rel=0.2)


def test_the_estimate_from_widths_is_the_size_before_huffman(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netadapt.resources.compressed.MATRIX", SIX_AND_FIVE)
    graph = in_a_row(*(fully_connected((1, inputs), outputs) for inputs, outputs, _ in LENET_300.values()))
    named = {f"layer_{place}": LayerDensity(weight=density) for place, (*_, density) in enumerate(LENET_300.values())}
    estimated = Compressed(Densities("lenet", "", 1, named)).price(graph)
    assert estimated == pytest.approx(33_000, rel=0.05)
    found = compressed(lenet_300(), {str(place): SIX_AND_FIVE for place in range(3)})
    assert estimated == pytest.approx(found.bytes_without_huffman, rel=0.02)


ALEXNET = (  # weights, density, coding: 8 and 4 bits for convolutions, 5 and 4 for the others
    (96 * 3 * 121, 0.84, Coding(8, 4)), (256 * 48 * 25, 0.38, Coding(8, 4)), (384 * 256 * 9, 0.35, Coding(8, 4)),
    (384 * 192 * 9, 0.37, Coding(8, 4)), (256 * 192 * 9, 0.37, Coding(8, 4)), (4096 * 9216, 0.09, Coding(5, 4)),
    (4096 * 4096, 0.09, Coding(5, 4)), (1000 * 4096, 0.25, Coding(5, 4)),
)  # fmt: skip


def test_alexnet_is_estimated_as_the_formula_with_zeros_in_long_gaps_says() -> None:
    bits = sum(coding.bits(weights, stored_weights(weights, density, coding)) for weights, density, coding in ALEXNET)
    assert bits / 8e6 == pytest.approx(9.56, rel=0.02)


def test_a_network_that_is_loaded_from_what_was_decoded_has_its_zeros_and_few_values() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    with torch.no_grad():
        model[4].weight[:, ::2] = 0
    found = compressed(model)
    found.load_into(model)
    assert int((model[4].weight == 0).sum()) == 5 * 8 * 18
    assert len(model[4].weight.unique()) <= 32
    assert found.other_bits == 32 * (8 + 2 * 8 + 5)  # biases, and two values for each channel of the normalisation


def test_the_estimated_size_never_grows_when_channels_or_weights_go() -> None:
    graph = mobilenet_v1(0.5, 64)
    sizes = [open_resource("compressed").price(graph.at_widths({"pw3": width})) for width in (64, 48, 32, 8)]
    assert sizes == sorted(sizes, reverse=True)
    prices = []
    for density in (1.0, 0.5, 0.2, 0.05, 0.0):
        named = {node.name: LayerDensity(weight=density) for node in graph.nodes}
        prices.append(Compressed(Densities("net", "", 1, named)).price(graph))
    assert prices == sorted(prices, reverse=True)
    assert prices[0] == open_resource("compressed").price(graph)


def test_a_budget_takes_the_densities_of_a_modelled_table(tmp_path: Path) -> None:
    graph = mobilenet_v1(0.25, 32, pairs=3)
    write_densities(Densities("net", "d", 1, {"pw3": LayerDensity(weight=0.1)}), tmp_path / "d.json")
    build_modelled([Plan(graph)], "model:eyeriss_v2", tmp_path / "t.parquet", tmp_path / "d.json")
    goals = open_goals(parse_budgets(["chip.compressed=50%"], {"chip": ""}), {"chip": load_table(tmp_path / "t.parquet")})
    assert goals[0].name == "chip.compressed"
    assert goals[0].resource.price(graph) < open_resource("compressed").price(graph)


def test_every_size_is_finite_for_a_layer_without_weights() -> None:
    assert math.isfinite(
        Compressed(Densities("net", "", 1, {"layer_0": LayerDensity(weight=0.0)})).price(in_a_row(fully_connected((1, 8), 8)))
    )
