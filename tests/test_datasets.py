"""Datasets: what each loader gives, how it is split, and how a bad path is told."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from netadapt.training.datasets import DataError, absolute, clutter, name_and_path
from netadapt.training.datasets.images import resized
from netadapt.training.datasets.opening import open_dataset
from netadapt.training.tasks import open_task
from netadapt.training.types import Dataset, ImagesInMemory

RECORD = 1 + 3 * 32 * 32


def _write_images(folder: Path, count: int, *, size: tuple[int, int] = (12, 10), shade: int = 100) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", size, (shade, number, 0)).save(folder / f"{number}.png")


def _cifar10_arrays(images: int = 40) -> dict[str, np.ndarray]:
    """Strips of ten, as in the .npz layout; image i is of class i % 4 and of shade i."""
    strips = []
    for start in range(0, images, 10):
        strip = np.repeat(np.arange(start, start + 10, dtype=np.uint8), 32 * 32 * 3).reshape(320, 32, 3)
        buffer = io.BytesIO()
        Image.fromarray(strip).save(buffer, "webp", lossless=True)
        strips.append(np.frombuffer(buffer.getvalue(), dtype=np.uint8))
    return {
        "webp": np.concatenate(strips),
        "offset": np.cumsum([0, *map(len, strips)]),
        "label": (np.arange(images) % 4).astype(np.uint8),
        "is_test": np.arange(images) >= 30,
        "classes": np.array(["airplane", "bird", "cat", "deer"]),
    }


def _write_binary_cifar10(folder: Path) -> None:
    folder.mkdir()
    for name, shade in (("data_batch_1", 10), ("data_batch_2", 20), ("test_batch", 30)):
        records = np.full((20, RECORD), shade, dtype=np.uint8)
        records[:, 0] = np.arange(20) % 10
        records[:, 1 + 1024 : 1 + 2048] = 200  # the green plane
        records.tofile(folder / f"{name}.bin")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_dataset("digits", resolution=16, seed=0)


def test_digits_are_all_there_in_three_channels_of_the_resolution(digits: Dataset) -> None:
    assert sum(map(len, (digits.train, digits.holdout, digits.test))) == 1797
    assert digits.train.images.shape[1:] == (3, 16, 16)
    assert digits.train.images.dtype == torch.uint8
    assert torch.equal(digits.train.images[:, 0], digits.train.images[:, 2])


def test_digits_use_the_whole_range_and_are_never_mirrored(digits: Dataset) -> None:
    native = open_dataset("digits", resolution=8, seed=0)
    assert (int(native.train.images.min()), int(native.train.images.max())) == (0, 255)
    assert not digits.train.mirrored


def test_every_part_has_every_class_in_its_share(digits: Dataset) -> None:
    for part, share in ((digits.train, 0.75 * 0.85), (digits.holdout, 0.75 * 0.15), (digits.test, 0.25)):
        shares = torch.bincount(part.targets, minlength=10) / 1797
        assert float((shares / share * 10 - 1).abs().max()) < 0.1


def test_the_seed_moves_the_holdout_but_never_the_test_part(digits: Dataset) -> None:
    other = open_dataset("digits", resolution=16, seed=1)
    assert torch.equal(other.test.images, digits.test.images)
    assert not torch.equal(other.holdout.images, digits.holdout.images)


def test_the_same_seed_gives_the_same_parts(digits: Dataset) -> None:
    again = open_dataset("digits", resolution=16, seed=0)
    assert torch.equal(again.holdout.images, digits.holdout.images)
    assert torch.equal(again.train.targets, digits.train.targets)


def test_a_batch_of_all_training_images_is_normalised(digits: Dataset) -> None:
    images, labels = digits.train.batch(torch.arange(len(digits.train)))
    assert abs(float(images.mean())) < 1e-3
    assert abs(float(images.std()) - 1) < 1e-3
    assert torch.equal(labels, digits.train.targets)


@settings(deadline=None, max_examples=30)
@given(per_class=st.lists(st.integers(2, 9), min_size=2, max_size=4), seed=st.integers(0, 5), fraction=st.floats(0.05, 0.9))
def test_parts_never_share_a_image_and_lose_none(
    per_class: list[int], seed: int, fraction: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("images")
    for label, count in enumerate(per_class):
        _write_images(root / "train" / f"c{label}", count, size=(2, 2), shade=label)
        _write_images(root / "test" / f"c{label}", 1, size=(2, 2), shade=100 + label)
    opened = open_dataset(str(root), resolution=2, seed=seed, holdout_fraction=fraction)
    parts = [{tuple(image[:, 0, 0].tolist()) for image in part.images} for part in (opened.train, opened.holdout, opened.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == sum(per_class) + len(per_class)
    assert all(set(part.targets.tolist()) == set(range(len(per_class))) for part in (opened.train, opened.holdout))


def test_cifar10_in_webp_strips_is_read_as_it_was_written(tmp_path: Path) -> None:
    np.savez(tmp_path / "cifar.npz", **_cifar10_arrays())
    opened = open_dataset(str(tmp_path / "cifar.npz"), resolution=32, seed=0)
    assert opened.classes == ("airplane", "bird", "cat", "deer")
    assert opened.test.images[:, 0, 0, 0].tolist() == list(range(30, 40))
    assert opened.test.targets.tolist() == [number % 4 for number in range(30, 40)]
    assert opened.train.mirrored


def test_the_binary_version_of_cifar10_is_read_plane_by_plane(tmp_path: Path) -> None:
    _write_binary_cifar10(tmp_path / "cifar-10-batches-bin")
    opened = open_dataset(f"cifar10:{tmp_path / 'cifar-10-batches-bin'}", resolution=32, seed=0)
    assert opened.test.images[0, :, 5, 5].tolist() == [30, 200, 30]
    assert len(opened.train) + len(opened.holdout) == 40
    assert opened.classes[9] == "truck"


def test_a_batch_of_cifar10_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    _write_binary_cifar10(tmp_path / "batches")
    (tmp_path / "batches" / "data_batch_2.bin").unlink()
    (tmp_path / "batches" / "data_batch_2.bin").mkdir()
    with pytest.raises(DataError, match=r"data_batch_2\.bin cannot be read: Is a directory$"):
        open_dataset(str(tmp_path / "batches"), resolution=32, seed=0)


def test_a_plain_path_to_the_binary_version_is_recognised(tmp_path: Path) -> None:
    _write_binary_cifar10(tmp_path / "batches")
    assert open_dataset(str(tmp_path / "batches"), resolution=32, seed=0).name == "cifar10"


def test_cifar10_comes_at_another_resolution_when_asked(tmp_path: Path) -> None:
    _write_binary_cifar10(tmp_path / "batches")
    opened = open_dataset(str(tmp_path / "batches"), resolution=48, seed=0)
    assert opened.test.images.shape == (20, 3, 48, 48)
    assert opened.test.images[0, :, 20, 20].tolist() == [30, 200, 30]


def test_images_of_a_folder_are_scaled_on_the_short_side_and_cut_to_the_middle(tmp_path: Path) -> None:
    for name in ("left", "right"):
        _write_images(tmp_path / name, 4)
        wide = Image.new("RGB", (40, 20), (0, 0, 0))
        wide.paste((255, 255, 255), (10, 0, 30, 20))  # the middle half is white
        wide.save(tmp_path / name / "wide.png")
    opened = open_dataset(f"folder:{tmp_path}", resolution=10, seed=0)
    everything = torch.cat([part.images for part in (opened.train, opened.holdout, opened.test)])
    assert everything.shape[1:] == (3, 10, 10)
    assert int((everything.float().mean(dim=(1, 2, 3)) > 240).sum()) == 2


def test_a_folder_with_val_instead_of_test_keeps_them_apart(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        _write_images(tmp_path / "train" / name, 5)
        _write_images(tmp_path / "val" / name, 3, shade=200)
    opened = open_dataset(str(tmp_path), resolution=8, seed=0)
    assert opened.classes == ("cat", "dog")
    assert opened.test.images[:, 0, 4, 4].tolist() == [200] * 6


def test_resizing_keeps_a_plain_colour() -> None:
    plain = torch.full((3, 1, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(resized(plain, 20), torch.full((3, 1, 20, 20), 77, dtype=torch.uint8))


def test_a_part_of_floats_cannot_exist() -> None:
    with pytest.raises(ValueError, match="float32"):
        ImagesInMemory(
            torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), (0.0,) * 3, (1.0,) * 3, True, open_task("classification")
        )


def test_a_path_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no dataset at"):
        open_dataset(str(tmp_path / "nowhere"), resolution=8, seed=0)


def test_a_name_that_is_nearly_right_gets_a_hint() -> None:
    with pytest.raises(DataError, match="did you mean 'digits'"):
        open_dataset("digit", resolution=8, seed=0)


def test_a_path_that_is_neither_a_file_nor_a_folder_is_told() -> None:
    with pytest.raises(DataError, match="/dev/null is neither a file nor a folder"):
        name_and_path("/dev/null")


def test_a_folder_without_images_is_told(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("none")
    with pytest.raises(DataError, match="there are no images in the subfolders"):
        open_dataset(str(tmp_path), resolution=8, seed=0)


def test_a_class_with_too_few_images_is_named(tmp_path: Path) -> None:
    _write_images(tmp_path / "cat", 6)
    _write_images(tmp_path / "dog", 1)
    with pytest.raises(DataError, match="class 'dog' has 1 training image"):
        open_dataset(str(tmp_path), resolution=8, seed=0)


@pytest.mark.parametrize("kept_bytes", [8, 40])
def test_a_damaged_image_is_named(tmp_path: Path, kept_bytes: int) -> None:
    for name in ("cat", "dog"):
        _write_images(tmp_path / name, 4)
    damaged = tmp_path / "dog" / "2.png"
    damaged.write_bytes(damaged.read_bytes()[:kept_bytes])
    with pytest.raises(DataError, match=r"dog.2\.png is not an image, or damaged"):
        open_dataset(str(tmp_path), resolution=8, seed=0)


def test_a_file_that_is_no_npz_is_told(tmp_path: Path) -> None:
    (tmp_path / "cifar.npz").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(DataError, match=r"is damaged or not an \.npz file of plain arrays; use another copy of CIFAR-10$"):
        open_dataset(str(tmp_path / "cifar.npz"), resolution=32, seed=0)


def test_an_npz_of_something_else_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(
        DataError,
        match="has the arrays x; give a file with the arrays x_train, y_train, x_test and y_test, or those of CIFAR-10: webp,",
    ):
        open_dataset(str(tmp_path / "other.npz"), resolution=32, seed=0)


def test_a_pickled_array_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "cifar.npz", **(_cifar10_arrays() | {"classes": np.array([{"a": 1}], dtype=object)}))
    with pytest.raises(DataError, match=r"is damaged or not an \.npz file of plain arrays; use another copy of CIFAR-10$"):
        open_dataset(str(tmp_path / "cifar.npz"), resolution=32, seed=0)


def test_a_damaged_strip_is_named(tmp_path: Path) -> None:
    arrays = _cifar10_arrays()
    arrays["webp"][: arrays["offset"][1]] = 0
    np.savez(tmp_path / "cifar.npz", **arrays)
    with pytest.raises(DataError, match="strip 0 is no image"):
        open_dataset(str(tmp_path / "cifar.npz"), resolution=32, seed=0)


def test_a_truncated_binary_batch_is_named(tmp_path: Path) -> None:
    _write_binary_cifar10(tmp_path / "batches")
    batch = tmp_path / "batches" / "data_batch_2.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_2\.bin is damaged"):
        open_dataset(str(tmp_path / "batches"), resolution=32, seed=0)


def test_more_images_than_memory_should_hold_are_told_before_they_are_made() -> None:
    with pytest.raises(DataError, match="GiB of memory"):
        open_dataset("digits", resolution=4096, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_a_holdout_must_be_a_part(fraction: float) -> None:
    with pytest.raises(DataError, match="holdout fraction between 0 and 1"):
        open_dataset("digits", resolution=8, seed=0, holdout_fraction=fraction)


@pytest.mark.parametrize(
    ("written", "kept"), [("folder:images", "folder:{here}/images"), ("images", "{here}/images"), ("digits", "digits")]
)
def test_a_dataset_is_kept_with_an_absolute_path(written: str, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "digits").mkdir()  # a folder of that name does not hide the dataset
    assert absolute(written) == kept.format(here=tmp_path.resolve())


@pytest.fixture(scope="module")
def cluttered() -> Dataset:
    return open_dataset("clutter:400", resolution=16, seed=1)


def test_digits_among_clutter_are_the_same_whenever_they_are_drawn(cluttered: Dataset) -> None:
    again = open_dataset("clutter:400", resolution=16, seed=2)
    assert torch.equal(again.test.images, cluttered.test.images)
    assert torch.equal(again.test.targets, cluttered.test.targets)


def test_no_two_digits_among_clutter_look_alike(cluttered: Dataset) -> None:
    everything = torch.cat([part.images for part in (cluttered.train, cluttered.holdout, cluttered.test)])
    assert len(everything.flatten(1).unique(dim=0)) == 400


def test_a_fifth_of_the_digits_among_clutter_tests(cluttered: Dataset) -> None:
    assert len(cluttered.test) == 80
    assert set(cluttered.test.targets.tolist()) == set(range(10))


def test_no_digit_of_a_test_image_is_in_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = clutter.datasets.load_digits()
    bundle.target = np.arange(len(bundle.target))  # so that labels tell which digit it is
    monkeypatch.setattr(clutter.datasets, "load_digits", lambda: bundle)
    drawn = clutter.load_clutter("2000", 4)
    assert drawn.is_test is not None
    assert not {*drawn.targets[drawn.is_test].tolist()} & {*drawn.targets[~drawn.is_test].tolist()}


@pytest.mark.parametrize("count", ["some", "19", "-1", "1.5"])
def test_a_number_of_cluttered_images_that_is_none_is_refused(count: str) -> None:
    with pytest.raises(DataError, match="clutter:COUNT from 20"):
        open_dataset(f"clutter:{count}", resolution=16, seed=1)
