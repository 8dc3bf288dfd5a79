"""Datasets that are not small: images are read while networks are trained, and give what the same images give in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from netadapt.errors import RunError
from netadapt.networks.options import NetworkOptions
from netadapt.runs.models import dataset_of
from netadapt.settings import DataSettings
from netadapt.training.datasets import DataError, images
from netadapt.training.datasets.opening import open_dataset
from netadapt.training.recipe import TrainSettings
from netadapt.training.streaming import StreamedPart
from netadapt.training.trainer import score, train
from netadapt.training.types import Dataset, ImagesInMemory

SETTINGS = TrainSettings(0.05, steps=8, batch_size=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty JPEGs of two classes, large enough to be unpacked at a smaller scale."""
    generator = np.random.default_rng(0)
    for kind, shade in (("dark", 0), ("bright", 150)):
        (tmp_path / "images" / kind).mkdir(parents=True)
        for number in range(10):
            pixels = generator.integers(shade, shade + 100, (80, 96, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / kind / f"{number}.jpg")
    return tmp_path / "images"


@pytest.fixture
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(images, "SMALL_BYTES", 0)
    return iter(())


def opened(folder: Path, name: str = "folder", workers: int | None = None) -> Dataset:
    return open_dataset(f"{name}:{folder}", resolution=16, seed=1, workers=workers)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(4, 2)
    )


def weights(model: nn.Module) -> Tensor:
    return torch.cat([value.flatten().float() for value in model.state_dict().values()])


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_images_train_as_those_in_memory_do(folder: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    there = opened(folder)
    monkeypatch.setattr(images, "SMALL_BYTES", 0)
    streamed = opened(folder, workers=workers)
    assert isinstance(there.train, ImagesInMemory) and isinstance(streamed.train, StreamedPart)
    assert streamed.train.mean == pytest.approx(there.train.mean) and streamed.train.std == pytest.approx(there.train.std)
    models = [network(), network()]
    train(models[0], there.train, SETTINGS, seed=2)
    train(models[1], replace(streamed.train, mean=there.train.mean, std=there.train.std), SETTINGS, seed=2)
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert score(models[0], there.test) == score(models[1], replace(streamed.test, mean=there.test.mean, std=there.test.std))


@pytest.mark.usefixtures("nothing_is_small")
def test_the_long_training_streams_the_holdout_too(folder: Path) -> None:
    found = opened(folder)
    whole = found.train.joined(found.holdout)
    assert len(whole) == len(found.train) + len(found.holdout)
    assert whole.batch(torch.arange(len(whole)))[0].shape == (len(whole), 3, 16, 16)


@pytest.mark.usefixtures("nothing_is_small")
def test_images_that_cannot_be_read_are_named_and_counted_before_training(folder: Path) -> None:
    for name in ("3.jpg", "5.jpg"):
        (folder / "dark" / name).write_bytes((folder / "dark" / name).read_bytes()[:200])
    with pytest.raises(DataError, match=r"dark/3\.jpg is not an image, .*\(2 of 20 images cannot be read\)"):
        opened(folder)


@pytest.mark.usefixtures("nothing_is_small")
def test_images_that_cannot_be_read_are_left_out_on_request_and_remembered(folder: Path) -> None:
    (folder / "dark" / "3.jpg").write_bytes(b"no image")
    found = opened(folder, "folder-readable")
    assert len(found.train) + len(found.holdout) + len(found.test) == 19
    assert any("1 images in it that cannot be read are left out" in remark for remark in found.remarks)
    assert found.known is not None and found.known.left_out == ("dark/3.jpg",)


def test_unreadable_images_of_a_small_folder_are_counted_too(folder: Path) -> None:
    for name in ("3.jpg", "5.jpg"):
        (folder / "dark" / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"\(2 of 20 images cannot be read\)"):
        opened(folder)


@pytest.mark.usefixtures("nothing_is_small")
def test_what_a_run_knows_of_its_images_saves_reading_them_again(folder: Path) -> None:
    data, options = DataSettings(f"folder:{folder}", 0.3), NetworkOptions("mobilenet_v1", resolution=16)
    known = dataset_of(options, data, 1, None).known
    (folder / "dark" / "3.jpg").write_bytes(b"no image")
    again = dataset_of(options, replace(data, known=known), 1, None)
    assert again.known == known


@pytest.mark.usefixtures("nothing_is_small")
def test_a_folder_that_has_changed_since_a_run_began_is_told(folder: Path) -> None:
    data, options = DataSettings(f"folder:{folder}", 0.3), NetworkOptions("mobilenet_v1", resolution=16)
    known = dataset_of(options, data, 1, None).known
    (folder / "dark" / "3.jpg").unlink()
    with pytest.raises(RunError, match="no longer those that the run began with"):
        dataset_of(options, replace(data, known=known), 1, None)


@pytest.mark.usefixtures("nothing_is_small")
def test_one_channel_is_the_mean_of_the_images_channels(folder: Path) -> None:
    found = open_dataset(f"folder:{folder}", resolution=16, channels=1, seed=1)
    assert found.train.shapes == ((1, 16, 16),)
    assert found.train.batch(torch.arange(2))[0].shape == (2, 1, 16, 16)
