"""Encoders that start from MobileNetV1's weights: what they compute at first, and what does not fit."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from netadapt.errors import RunError
from netadapt.networks import build_network
from netadapt.networks.fastdepth import FastDepth
from netadapt.networks.pretrained import start_encoder
from netadapt.training.datasets import DataError
from netadapt.training.tasks import open_task
from netadapt.training.types import ImagesInMemory

WIDTHS = (8, 16, 32, 32, 64, 64, *(128,) * 6, 256, 256)
HALF = 128 / 255


def _arrays() -> dict[str, Any]:
    """At a quarter of the usual width, with small random weights and biases that no filter lives without."""
    generator, arrays = np.random.default_rng(0), {}
    shapes = [("conv", (8, 3, 3, 3))]
    for before, after in pairwise(WIDTHS):
        shapes += [("dw", (1, 3, 3, before)), ("conv", (after, 1, 1, before))]
    for number, (kind, shape) in enumerate(shapes):
        arrays[f"w{number:02d}"] = generator.integers(0, 256, shape).astype(np.uint8)
        arrays[f"b{number:02d}"] = generator.integers(0, 900, shape[3 if kind == "dw" else 0]).astype(np.int32)
    count = len(shapes)
    scale = np.array([0.01 / np.sqrt(np.prod(shape[1:3]) * (1 if kind == "dw" else shape[3])) for kind, shape in shapes])
    return arrays | {
        "kind": np.array([kind for kind, _ in shapes]), "w_scale": scale.astype(np.float32),
        "w_zero": np.full(count, 120, np.int32), "b_scale": np.full(count, 1e-3, np.float32),
    }  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mobilenet.npz"
    np.savez(path, **_arrays())
    return path


def _part(mean: float = HALF, std: float = HALF) -> ImagesInMemory:
    images = torch.randint(0, 256, (6, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    return ImagesInMemory(images, torch.ones(6, 1, 32, 32).short(), (mean,) * 3, (std,) * 3, True, open_task("depth"))


def _network(multiplier: float = 0.25) -> FastDepth:
    torch.manual_seed(0)
    network = build_network("fastdepth", width_multiplier=multiplier, resolution=32)
    assert isinstance(network, FastDepth)
    return network.eval()


def _expected(images: Tensor) -> Tensor:
    """What the integer model computes, but for the padding: straight from the arrays."""
    arrays, features = _arrays(), (images.float() - 128) / 128
    halving = {0, 3, 7, 11, 23}
    for number, kind in enumerate(arrays["kind"]):
        weight = (arrays[f"w{number:02d}"].astype(np.float32) - 120) * arrays["w_scale"][number]
        turned = torch.tensor(weight.transpose(3, 0, 1, 2) if kind == "dw" else weight.transpose(0, 3, 1, 2))
        features = functional.conv2d(
            features, turned, torch.tensor(arrays[f"b{number:02d}"]).float() * 1e-3, 2 if number in halving else 1,
            turned.shape[-1] // 2, groups=len(turned) if kind == "dw" else 1,
        ).clamp(0, 6)  # fmt: skip
    return features


def test_the_encoder_computes_at_first_what_the_file_s_network_does(file: Path) -> None:
    network, part = _network(), _part()
    start_encoder(network, file, part)
    with torch.no_grad():
        found = network.pairs(network.stem(part.batch(torch.arange(6))[0]))
    expected = _expected(part.images)
    assert float(expected.std()) > 0.01
    assert torch.allclose(found, expected, atol=1e-4)


def test_another_normalisation_of_images_changes_nothing_within_them(file: Path) -> None:
    part = _part(0.4, 0.25)
    outputs = []
    for other in (_part(), part):
        network = _network()
        start_encoder(network, file, other)
        with torch.no_grad():
            outputs.append(network.stem(other.batch(torch.arange(6))[0])[:, :, 1:-1, 1:-1])
    assert torch.allclose(outputs[0], outputs[1], atol=1e-4)


def test_in_training_it_begins_where_it_stands(file: Path) -> None:
    network, part = _network(), _part()
    start_encoder(network, file, part)
    images, _ = part.batch(torch.arange(6))
    with torch.no_grad():
        still = network.stem(images)
        moving = network.train().stem(images)
    assert torch.allclose(still, moving, atol=1e-2)


def test_the_decoder_and_the_mode_are_left_alone(file: Path) -> None:
    network, before = _network().train(), _network().state_dict()
    start_encoder(network, file, _part())
    after = network.state_dict()
    assert network.training
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith(("decoder", "head")))


def test_a_thinner_network_gets_the_strongest_filters(file: Path) -> None:
    network = _network(0.125)
    start_encoder(network, file, _part())
    arrays = _arrays()
    pointwise = (arrays["w02"].astype(np.float32) - 120) * arrays["w_scale"][2]  # (16, 1, 1, 8)
    strongest = np.sort(np.argsort(-(pointwise**2).sum(axis=(1, 2, 3)))[:8])
    expected = torch.tensor(pointwise[strongest].transpose(0, 3, 1, 2))
    assert torch.allclose(network.pairs[0].get_submodule("pointwise.conv").get_parameter("weight"), expected)


def test_a_wider_network_is_told(file: Path) -> None:
    with pytest.raises(RunError, match="does not fit this network: its layer 0"):
        start_encoder(_network(1.0), file, _part())


def test_a_network_of_another_kind_is_told(file: Path) -> None:
    with pytest.raises(RunError, match="does not"):
        start_encoder(build_network("resnet18", width_multiplier=0.25, resolution=32, classes=4), file, _part())


def test_a_file_of_something_else_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(DataError, match="is not a MobileNetV1"):
        start_encoder(_network(), tmp_path / "other.npz", _part())
