"""The networks that can be adapted by name."""

from __future__ import annotations

import pytest
import torch

from netadapt.networks import NETWORKS, NetworkError, build_network, describe, has_classifier, network_graph
from netadapt.networks.units import scaled_channels


def _parameters(**options: object) -> int:
    return sum(weight.numel() for weight in build_network("mobilenet_v1", **options).parameters())  # type: ignore[arg-type]


def test_mobilenet_v1_has_the_published_number_of_parameters() -> None:
    assert _parameters() == 4_231_976  # 4.2 million in the paper's table 8


def test_mobilenet_v1_has_the_published_number_of_macs_and_fourteen_blocks() -> None:
    graph = network_graph("mobilenet_v1")
    assert round(graph.macs / 1e6, 1) == 568.7  # 569 million in the paper's table 8
    assert len(graph.widths) == 14


def test_a_description_is_of_the_network_as_asked_for() -> None:
    description = describe("mobilenet_v1", width_multiplier=0.25, resolution=32, classes=10, in_channels=1)
    assert description.input == (1, 1, 32, 32)
    assert description.blocks == 14
    assert description.parameters == _parameters(width_multiplier=0.25, classes=10, in_channels=1)


@pytest.mark.parametrize(
    ("channels", "width_multiplier", "expected"),
    [(32, 1.0, 32), (32, 0.1, 8), (64, 0.3, 24), (1024, 0.35, 360), (32, 0.35, 16), (64, 0.75, 48)],
)
def test_scaled_channels_are_multiples_of_eight_near_what_was_asked_for(
    channels: int, width_multiplier: float, expected: int
) -> None:
    assert scaled_channels(channels, width_multiplier) == expected


def test_a_small_input_keeps_its_size_until_the_second_pair() -> None:
    model = build_network("mobilenet_v1", width_multiplier=0.25, small_input=True).eval()
    sizes = []
    features = model.get_submodule("stem")(torch.zeros(1, 3, 32, 32))
    for pair in model.get_submodule("pairs").children():
        features = pair(features)
        sizes.append(features.shape[-1])
    assert sizes == [32, 16, 16, 8, 8, 4, 4, 4, 4, 4, 4, 4, 4]


def test_every_network_runs_at_its_resolution() -> None:
    for name in NETWORKS:
        classes = {"classes": 7} if has_classifier(name) else {}
        model = build_network(name, width_multiplier=0.25, resolution=64, **classes).eval()
        assert model(torch.zeros(2, 3, 64, 64)).shape == ((2, 7) if classes else (2, 1, 64, 64))


def test_the_same_torch_seed_gives_the_same_weights() -> None:
    first, second = (_seeded_classifier() for _ in range(2))
    assert torch.equal(first, second)


def _seeded_classifier() -> torch.Tensor:
    torch.manual_seed(3)
    return build_network("mobilenet_v1", width_multiplier=0.25, classes=10).get_parameter("classifier.weight")


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("mobilnet_v1", {}, "did you mean 'mobilenet_v1'"),
        ("xyz", {}, "known are fastdepth, mobilenet_v1"),
        ("mobilenet_v1", {"small_inputs": True}, "did you mean 'small_input'"),
        ("mobilenet_v2", {"small_input": True}, "leave it out, as it has none"),
        ("mobilenet_v1", {"width_multiplier": 0.0}, "width multiplier must be above 0"),
        ("mobilenet_v1", {"classes": 0}, "number of classes must be at least 1"),
    ],
)
def test_what_cannot_be_built_is_told_in_one_sentence(name: str, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(NetworkError, match=sentence):
        build_network(name, **options)  # type: ignore[arg-type]


def test_fastdepth_s_first_guess_is_the_depth_of_a_room() -> None:
    torch.manual_seed(0)
    network = build_network("fastdepth", width_multiplier=0.25, resolution=32).train()
    assert float(network(torch.randn(4, 3, 32, 32)).detach().mean()) == pytest.approx(3, abs=0.2)
