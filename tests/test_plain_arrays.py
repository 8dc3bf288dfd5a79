"""Datasets as torchvision, Keras and others leave them: CIFAR's pickles, idx files, arrays; and what a file is that is none."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from netadapt.training.datasets import DataError
from netadapt.training.datasets.opening import open_dataset
from netadapt.training.datasets.plain_pickle import read_plain_pickle
from netadapt.training.types import Dataset

# What cPickle of Python 2 wrote for one image of 2 by 1 "pixels": as the published batches begin and end
PYTHON_2 = (
    b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05K\x06aU\x04dataq\x06"
    b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\tU\x01bq\n\x87Rq\x0b(K\x01K\x01K\x02\x86cnumpy\n"
    b"dtype\nq\x0cU\x02u1q\rK\x00K\x01\x87Rq\x0e(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x02\x00\x00\x00\xff\x80tb"
    b"U\tfilenamesq\x0f]q\x10U\x05a.pngq\x11au."
)


def opened(path: Path | str, resolution: int = 32) -> Dataset:
    return open_dataset(str(path), resolution=resolution, seed=0)


def batch(count: int, shade: int, *, labels: str = "labels", classes: int = 10) -> dict[Any, Any]:
    pixels = np.full((count, 3072), shade, np.uint8)
    pixels[:, 1024:2048] = 200  # the green plane
    return {b"batch_label": b"some", labels.encode(): [number % classes for number in range(count)], b"data": pixels}


def write_cifar(folder: Path, protocol: int = 2) -> Path:
    folder.mkdir(parents=True)
    for number in range(1, 6):
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps(batch(20, number), protocol))
    (folder / "test_batch").write_bytes(pickle.dumps(batch(20, 30), protocol))
    names = [b"aeroplane", *(b"class %d" % number for number in range(1, 10))]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol))
    (folder / "readme.html").write_text("<meta>")
    return folder


def test_a_pickle_of_python_2_is_read_as_it_was_written() -> None:
    found = read_plain_pickle(PYTHON_2)
    assert found["labels"] == [6] and found["batch_label"] == "training batch 1 of 5"
    assert np.array_equal(found["data"], np.array([[255, 128]], np.uint8))
    assert found["filenames"] == ["a.png"]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i4", "<f4"])
def test_arrays_of_every_protocol_come_back(protocol: int, dtype: str) -> None:
    plain = {"a": np.arange(6).astype(dtype).reshape(2, 3), "b": [1, 2.5, "x", None, True], b"c": (1, 2, 3, 4)}
    found = read_plain_pickle(pickle.dumps(plain, protocol))
    assert np.array_equal(found.pop("a"), plain.pop("a")) and found == plain


@pytest.mark.parametrize(
    "value",
    [
        {"a": Path("x")},
        {"a": print},
        {"a": np.array([{}], object)},
        {"a": {1, 2}},
        {"a": complex(1, 2)},
        {"a": np.array(["x"])},
        [1],
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_of_anything_else_is_refused(value: object, protocol: int) -> None:
    with pytest.raises(ValueError, match=r"more than plain data|damaged"):
        read_plain_pickle(pickle.dumps(value, protocol))


def test_a_call_in_a_pickle_is_never_made(tmp_path: Path) -> None:
    made = tmp_path / "made"
    with pytest.raises(ValueError, match=r"more than plain data: (posix|nt)\.mkdir"):
        read_plain_pickle(b"cposix\nmkdir\n(V" + str(made).encode() + b"\ntR.")
    assert not made.exists()


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_the_python_version_of_cifar10_is_read_plane_by_plane(protocol: int, tmp_path: Path) -> None:
    found = opened(write_cifar(tmp_path / "cifar-10-batches-py", protocol))
    assert found.name == "cifar10" and found.classes[0] == "aeroplane"
    assert found.test.images[0, :, 5, 5].tolist() == [30, 200, 30]
    assert (len(found.train) + len(found.holdout), len(found.test)) == (100, 20)


def test_the_folder_that_torchvision_was_given_is_looked_into(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    assert len(opened(tmp_path).test) == 20


def test_cifar100_has_its_fine_classes(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps(batch(400, 7, labels="fine_labels", classes=100), 2))
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"kind %d" % number for number in range(100)]}, 2))
    assert opened(folder).classes[99] == "kind 99"


def test_several_datasets_in_one_folder_are_not_chosen_among(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-10-batches-py")
    write_cifar(tmp_path / "cifar-10-other")
    with pytest.raises(DataError, match=r"several datasets in .*give the path of one"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {b"labels": [10] * 20}, {b"labels": [0] * 19}, {b"labels": ["x"] * 20}, {b"data": np.zeros((20, 3071), np.uint8)},
        {b"data": np.zeros((20, 3072), np.int64)}, {b"data": [1]},
    ],
)  # fmt: skip
def test_a_batch_that_contradicts_itself_is_named(change: dict[bytes, object], tmp_path: Path) -> None:
    folder = write_cifar(tmp_path / "c")
    (folder / "data_batch_2").write_bytes(pickle.dumps(batch(20, 1) | change, 2))
    with pytest.raises(DataError, match="data_batch_2 is not a batch of CIFAR"):
        opened(folder)


def test_a_truncated_batch_is_named(tmp_path: Path) -> None:
    folder = write_cifar(tmp_path / "c")
    (folder / "data_batch_2").write_bytes((folder / "data_batch_2").read_bytes()[:500])
    with pytest.raises(DataError, match="data_batch_2 is not a batch of CIFAR, or damaged"):
        opened(folder)


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


def write_mnist(folder: Path, *, packed: bool = False, sign: str = "-") -> Path:
    folder.mkdir(parents=True)
    for begin, count in (("train", 40), ("t10k", 20)):
        images, labels = np.zeros((count, 28, 28)), np.arange(count) % 10
        images[:, 14:] = 250
        for name, values in ((f"{begin}-images{sign}idx3-ubyte", images), (f"{begin}-labels{sign}idx1-ubyte", labels)):
            path = folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(idx(values)) if packed else idx(values))
    return folder


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("sign", ["-", "."])
def test_idx_files_are_read(packed: bool, sign: str, tmp_path: Path) -> None:
    found = opened(write_mnist(tmp_path / "MNIST" / "raw", packed=packed, sign=sign), 28)
    assert (found.name, found.classes) == ("MNIST", tuple("0123456789"))
    assert (len(found.train) + len(found.holdout), len(found.test)) == (40, 20)
    assert found.test.images[3, :, 20, 20].tolist() == [250] * 3 and int(found.test.images[3, :, :14].max()) == 0


def test_fashion_mnist_has_the_names_of_its_classes(tmp_path: Path) -> None:
    write_mnist(tmp_path / "FashionMNIST" / "raw")
    assert opened(tmp_path, 28).classes[-1] == "Ankle boot"


def test_a_truncated_idx_file_is_named(tmp_path: Path) -> None:
    file = write_mnist(tmp_path / "m") / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match="train-images-idx3-ubyte is not an idx file of bytes, or damaged"):
        opened(tmp_path / "m", 28)


IMAGES, LABELS = np.repeat(np.arange(40, dtype=np.uint8), 64).reshape(40, 8, 8), np.arange(40) % 4


def saved(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (IMAGES, LABELS), (IMAGES[..., None], LABELS), (np.stack([IMAGES] * 3, 1), LABELS), (np.stack([IMAGES] * 3, 3), LABELS),
        (IMAGES / 255, LABELS), (IMAGES.astype(np.float32), LABELS), (IMAGES.astype(np.int64), LABELS),
        (IMAGES.astype(np.uint16) * 257, LABELS), (IMAGES, LABELS[:, None]), (IMAGES, np.eye(4)[LABELS]), (IMAGES, LABELS + 1.0),
    ],
)  # fmt: skip
def test_arrays_are_read_in_every_usual_form(images: np.ndarray, labels: np.ndarray, tmp_path: Path) -> None:
    found = opened(saved(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images[:8], y_test=labels[:8]), 8)
    assert found.test.images[:, 2, 0, 0].tolist() == list(range(8)) and found.test.targets.tolist() == [0, 1, 2, 3] * 2
    assert len(found.train) + len(found.holdout) == 40 and len(found.classes) == 4


@pytest.mark.parametrize(
    "names", [("x_{}", "y_{}"), ("X_{}", "Y_{}"), ("{}_images", "{}_labels"), ("{}_x", "{}_y"), ("{}X", "{}Y"), ("X{}", "y{}")],
)  # fmt: skip
def test_arrays_are_found_under_their_usual_names(names: tuple[str, str], tmp_path: Path) -> None:
    arrays = {names[0].format(part): IMAGES for part in ("train", "val", "test")}
    arrays |= {names[1].format(part): LABELS for part in ("train", "val", "test")}
    found = opened(saved(tmp_path / "a.npz", **arrays), 8)
    assert (len(found.train), len(found.holdout), len(found.test)) == (40, 40, 40)
    assert found.remarks == ("its validation images are the holdout, whatever --holdout says",)


def test_arrays_that_are_not_used_are_told(tmp_path: Path) -> None:
    found = opened(saved(tmp_path / "a.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES), 8)
    assert found.remarks == ("in it, x_test is not used",)


def test_images_of_two_values_are_black_and_white(tmp_path: Path) -> None:
    assert opened(saved(tmp_path / "a.npz", x=IMAGES > 20, y=LABELS), 8).train.images.unique().tolist() == [0, 255]


def test_a_damaged_file_of_arrays_is_not_taken_for_cifar10(tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"use another copy$"):
        opened(tmp_path / "mine.npz")


def test_the_folder_that_emnist_is_unpacked_into_is_looked_into(tmp_path: Path) -> None:
    write_mnist(tmp_path / "gzip", packed=True)
    assert len(opened(tmp_path, 28).test) == 20


@pytest.mark.parametrize(("name", "meant"), [("MNIST", "idx:PATH"), ("cifar100", "cifar10:PATH"), ("imagenet", "folder:PATH")])
def test_a_dataset_that_is_known_by_its_name_says_how_to_give_it(name: str, meant: str) -> None:
    with pytest.raises(DataError, match=f"did you mean '{meant}'"):
        opened(name)


def test_an_address_says_that_nothing_is_downloaded() -> None:
    with pytest.raises(DataError, match="nothing is downloaded"):
        opened("https://example.org/data.zip")


def test_arrays_without_parts_are_split(tmp_path: Path) -> None:
    found = opened(saved(tmp_path / "a.npz", images=IMAGES, labels=LABELS), 8)
    assert len(found.test) == 8 and sum(map(len, (found.train, found.holdout))) == 32


def test_wide_images_are_cut_to_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((40, 8, 16), np.uint8)
    wide[:, :, 4:12] = 250
    assert int(opened(saved(tmp_path / "a.npz", x=wide, y=LABELS), 8).train.images.min()) == 250


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x_train": (IMAGES - 20.0) / 10, "y_train": LABELS}, "not yet normalised"),
        ({"x_train": IMAGES.reshape(40, 64), "y_train": LABELS}, r"images of shape \(40, 64\)"),
        ({"x_train": IMAGES, "y_train": LABELS[:-1]}, "are not a class for each of 40 images"),
        ({"x_train": IMAGES, "y_train": LABELS + 0.5}, "are not a class for each of 40 images"),
        ({"x_train": IMAGES, "y_train": np.array(["a"] * 40)}, "are not a class for each of 40 images"),
        ({"x_train": IMAGES, "y_train": LABELS * 0}, "one class only"),
        ({"x_train": IMAGES}, "has the arrays x_train; give a file with the arrays x_train, y_train"),
        ({"x_test": IMAGES, "y_test": LABELS}, "has no training images"),
        ({"x_train": np.array([{}] * 40, object), "y_train": LABELS}, "plain arrays"),
    ],
)
def test_arrays_that_are_no_images_with_labels_are_told(arrays: dict[str, np.ndarray], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        opened(saved(tmp_path / "a.npz", **arrays), 8)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cifar-10-python.tar.gz", "an archive; unpack it"), ("images.ZIP", "an archive; unpack it"), ("svhn.mat", "a MATLAB file"),
        ("training.pt", "a PyTorch file"), ("batch.pickle", "could run code"), ("x.npy", "a single array"),
        ("train.csv", "a table"),
        ("data.hdf5", "an HDF5 file"), ("0000.parquet", "a table"), ("train.tfrecord", "a TFRecord file"),
        ("instances.json", "a file of annotations"), ("data.yaml", "a file of annotations"), ("mydata.py", "Python; name its"),
        ("train.tfrecord-00000-of-00002", "a TFRecord file"), ("video.MP4", "a video"),
        ("images.zip.part", "an unfinished download"),
        ("data.bin", "no dataset by its ending"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_dataset_is_told_with_what_it_is(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=said):
        opened(tmp_path / name)


def test_grey_images_have_three_equal_channels(tmp_path: Path) -> None:
    images = opened(saved(tmp_path / "a.npz", x=IMAGES, y=LABELS), 8).train.images
    assert torch.equal(images[:, 0], images[:, 2])
