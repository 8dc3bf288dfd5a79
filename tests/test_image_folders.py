"""Folders of images as other programs leave them: which folder is what, which files are images, and how these are read."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netadapt.training.datasets import DataError
from netadapt.training.datasets.opening import open_dataset
from netadapt.training.types import Dataset

HALF = 100
"""The value of the lower half of each image; the upper one is black."""


def write(root: Path, parts: Sequence[str] = ("",), count: int = 8, *, shade: int = HALF, ending: str = "png") -> Path:
    for part in parts:
        for kind in ("a", "b"):
            (root / part / kind).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                image(shade + number).save(root / part / kind / f"{number}.{ending}")
    return root


def image(shade: int = HALF) -> Image.Image:
    pixels = np.zeros((24, 24, 3), np.uint8)
    pixels[12:] = shade
    return Image.fromarray(pixels)


def opened(root: Path, name: str = "folder") -> Dataset:
    return open_dataset(f"{name}:{root}", resolution=8, seed=1)


def sizes(found: Dataset) -> tuple[int, int, int]:
    return len(found.train), len(found.holdout), len(found.test)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"), ("Train", "Test"), ("TRAIN", "TEST"), ("training", "testing"), ("Training", "Testing"),
        ("training_set", "test_set"), ("train_images", "test_images"), ("TrainData", "TestData"), ("train-split", "val"),
        ("train2017", "val2017"), ("train_256", "eval"), ("seg_train", "seg_test"), ("trainval", "evaluation"),
    ],
)  # fmt: skip
def test_folders_that_are_called_as_parts_are_parts(train: str, test: str, tmp_path: Path) -> None:
    write(tmp_path, [train], 6)
    write(tmp_path, [test], 3, shade=200)
    found = opened(tmp_path)
    assert found.classes == ("a", "b")
    assert sizes(found)[2] == 6 and int(found.test.images.max()) >= 200 and int(found.train.images.max()) < 200


def test_validation_images_beside_the_two_others_are_the_holdout(tmp_path: Path) -> None:
    for part, shade in (("train", 50), ("Valid", 120), ("test", 200)):
        write(tmp_path, [part], 5, shade=shade)
    found = opened(tmp_path)
    assert sizes(found) == (10, 10, 10)
    assert 120 <= int(found.holdout.images.max()) < 130
    assert "Valid in it is the holdout, whatever --holdout says" in found.remarks


def test_validation_images_that_serve_as_test_images_are_told(tmp_path: Path) -> None:
    assert "val in it is the test part, as there is no other" in opened(write(tmp_path, ["train", "val"])).remarks


def test_a_folder_beside_the_parts_is_told(tmp_path: Path) -> None:
    found = opened(write(tmp_path, ["train", "test", "unlabelled"]))
    assert found.remarks == ("unlabelled in it, beside train, is no part with classes and is left out",)


def test_test_images_without_classes_are_told_and_left_out(tmp_path: Path) -> None:
    write(tmp_path, ["train"])
    (tmp_path / "test").mkdir()
    image().save(tmp_path / "test" / "1.png")
    found = opened(tmp_path)
    assert sum(sizes(found)) == 16 and found.remarks[0].startswith("test in it, beside train, is no part with classes")


def test_classes_may_be_called_as_parts(tmp_path: Path) -> None:
    for name in ("car", "train"):
        (tmp_path / name).mkdir()
        for number in range(4):
            image().save(tmp_path / name / f"{number}.png")
    assert opened(tmp_path).classes == ("car", "train")


def test_parts_that_hold_images_without_classes_are_no_classes(tmp_path: Path) -> None:
    for name in ("Test", "Train"):
        (tmp_path / name).mkdir()
        image().save(tmp_path / name / "1.png")
    with pytest.raises(DataError, match=r"Test and Train in .* hold images without classes"):
        opened(tmp_path)


def test_two_folders_for_one_part_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Train and training in .* may both be the train part"):
        opened(write(tmp_path, ["Train", "training"]))


def test_parts_without_training_images_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has test and val, but no train folder"):
        opened(write(tmp_path, ["test", "val"]))


def test_a_part_beside_classes_is_no_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has test, but no train folder; move the training images, with their classes, into one"):
        opened(write(tmp_path, ["", "test"]))


def test_folders_with_the_same_subfolders_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fold1 and fold2 in .* have the same subfolders, as parts of a dataset"):
        opened(write(tmp_path, ["fold1", "fold2", "fold3"]))


def test_subfolders_of_classes_that_differ_are_parts_of_their_class(tmp_path: Path) -> None:
    write(tmp_path, ["2020", "2021"])
    (tmp_path / "2021" / "b").rename(tmp_path / "2021" / "c")
    assert opened(tmp_path).classes == ("2020", "2021")


def test_a_folder_without_images_beside_that_of_the_images_is_no_class(tmp_path: Path) -> None:
    write(tmp_path, ["images/train", "images/val"])
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "1.txt").write_text("0")
    assert opened(tmp_path).classes == ("a", "b")


def test_test_images_in_a_folder_that_is_no_class_are_told_and_left_out(tmp_path: Path) -> None:
    write(tmp_path, ["train"])
    (tmp_path / "val" / "images").mkdir(parents=True)
    image().save(tmp_path / "val" / "images" / "1.png")
    found = opened(tmp_path)
    assert sum(sizes(found)) == 16 and found.remarks[0].startswith("val in it, beside train, is no part with classes")


def test_a_class_that_is_called_differently_in_the_test_part_names_the_one_that_was_meant(tmp_path: Path) -> None:
    write(tmp_path, ["train", "test"])
    for part, name in (("train", "Cat"), ("test", "cat")):
        (tmp_path / part / "a").rename(tmp_path / part / name)
    with pytest.raises(DataError, match=r"cat is a class without training images \(did you mean 'Cat'\?\); rename it"):
        opened(tmp_path)


def test_a_class_without_test_images_is_told(tmp_path: Path) -> None:
    write(tmp_path, ["train", "test"])
    shutil.rmtree(tmp_path / "test" / "b")
    (tmp_path / "test" / "b").mkdir()
    assert opened(tmp_path).remarks == ("there are no images of 'b' in its test part",)


def test_images_without_classes_are_told(tmp_path: Path) -> None:
    image().save(tmp_path / "cat_1.png")
    with pytest.raises(DataError, match="holds images without classes; move each into a subfolder"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cifar-10-python.tar.gz", "an archive; unpack it"), ("train_32x32.mat", "a MATLAB file"),
        ("data/train-00000-of-00001.parquet", "a table"), ("mnist-train.tfrecord-00000-of-00001", "a TFRecord file"),
        ("bedroom/data.mdb", "an LMDB database"), ("train_X.bin", "no image"),
    ],
)  # fmt: skip
def test_a_folder_without_images_is_told_with_what_it_holds(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(bytes(99))
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(DataError, match=f"{name} in it is {said}"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("data", "said"), [(b"<html>404</html>", "a page of a website"), (b"version https://git-lfs", "Git LFS"), (b"", "is empty")]
)
def test_a_file_in_the_place_of_an_image_is_told_with_what_it_is(data: bytes, said: str, tmp_path: Path) -> None:
    (write(tmp_path) / "a" / "0.png").write_bytes(data)
    with pytest.raises(DataError, match=said):
        opened(tmp_path)


@pytest.mark.parametrize("around", ["archive", "archive/images"])
def test_a_folder_around_everything_is_looked_through(around: str, tmp_path: Path) -> None:
    write(tmp_path / around, ["train", "test"])
    assert sizes(opened(tmp_path))[2] == 16


def test_a_folder_around_the_classes_of_a_part_is_looked_through(tmp_path: Path) -> None:
    write(tmp_path, ["training_set/training_set", "test_set/test_set"])
    assert opened(tmp_path).classes == ("a", "b")


LITTER = [".ipynb_checkpoints/0-checkpoint.png", "._0.png", ".0.png.swp", "Thumbs.db", "desktop.ini", "@eaDir/0.png", ".DS_Store"]


@pytest.mark.parametrize("name", LITTER)
def test_what_other_programs_put_among_images_is_left_out_and_counted(name: str, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "a" / name).parent.mkdir(exist_ok=True)
    shutil.copy(tmp_path / "a" / "0.png", tmp_path / "a" / name)
    found = opened(tmp_path)
    assert sum(sizes(found)) == 16
    assert found.remarks == ("1 files and folders of other programs in it, such as those that begin with a dot, are left out",)


def test_what_archives_of_macs_hold_is_no_class(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "__MACOSX" / "a").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "a" / "._0.png").write_bytes(b"\x00\x05\x16\x07")
    assert opened(tmp_path).classes == ("a", "b")


def test_files_that_are_no_images_are_counted_by_ending(tmp_path: Path) -> None:
    write(tmp_path)
    for name in ("notes.txt", "more.txt", "0"):
        (tmp_path / "b" / name).write_text("x")
    assert opened(tmp_path).remarks == (
        "3 files in it are no images by their endings and are left out: 2 .txt, 1 without an ending",
    )


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_images_of_16_bits_keep_their_range(ending: str, tmp_path: Path) -> None:
    write(tmp_path)
    plain = opened(tmp_path)
    for file in list(tmp_path.rglob("*.png")):
        grey = np.asarray(Image.open(file).convert("L")).astype(np.uint16) * 257
        file.unlink()
        Image.fromarray(grey).save(file.with_suffix(f".{ending}"))
    assert np.array_equal(opened(tmp_path).train.images, plain.train.images)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [(np.full((8, 8), 0.5, np.float32), "pixels in floats"), (np.full((8, 8), 70_000, np.int32), "pixels beyond 16 bits")],
)
def test_pixels_whose_white_is_not_known_are_told(pixels: np.ndarray, said: str, tmp_path: Path) -> None:
    write(tmp_path)
    Image.fromarray(pixels).save(tmp_path / "a" / "odd.tif")
    with pytest.raises(DataError, match=rf"odd\.tif has {said}, whose white is not known"):
        opened(tmp_path)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    write(tmp_path)
    for file in tmp_path.rglob("*.png"):
        Image.new("RGBA", (24, 24), (0, 0, 0, 0)).save(file)
    assert int(opened(tmp_path).train.images.min()) == 255


TURNS = {1: "below", 2: "below", 3: "above", 4: "above", 5: "right", 6: "left", 7: "left", 8: "right", 99: "below"}


@pytest.mark.parametrize(("orientation", "side"), TURNS.items())
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_images_stand_as_their_orientation_says(orientation: int, side: str, ending: str, tmp_path: Path) -> None:
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        for number in range(4):
            exif = Image.Exif()
            exif[0x0112] = orientation
            image(250).save(tmp_path / kind / f"{number}.{ending}", exif=exif, quality=95)
    first = opened(tmp_path).train.images[0, 0]
    means = {"above": first[:3].float().mean(), "below": first[-3:].float().mean()}
    means |= {"left": first[:, :3].float().mean(), "right": first[:, -3:].float().mean()}
    assert max(means, key=lambda place: float(means[place])) == side


@pytest.mark.parametrize(
    ("ending", "kind"), [("HEIC", "HEIC"), ("heif", "HEIC"), ("avif", "AVIF"), ("NEF", "raw"), ("jxl", "JPEG XL")]
)
def test_images_of_a_kind_that_is_not_read_are_named(ending: str, kind: str, tmp_path: Path) -> None:
    write(tmp_path)
    for file in list((tmp_path / "b").iterdir()):
        file.rename(file.with_suffix(f".{ending}"))
    with pytest.raises(DataError, match=f"{ending} is a {kind} image, which is not read; convert such files to JPEG or PNG"):
        opened(tmp_path)


@pytest.mark.parametrize("data", [b"Exif\x00\x00II", b"Exif\x00\x00" + bytes(40), b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff"])
def test_damaged_exif_data_spoil_no_image(data: bytes, tmp_path: Path) -> None:
    for file in list(write(tmp_path).rglob("*.png")):
        Image.open(file).save(file.with_suffix(".jpg"), exif=data)
        file.unlink()
    assert sum(sizes(opened(tmp_path))) == 16


def test_damaged_images_are_left_out_on_request_and_counted(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "a" / "3.png").write_bytes(b"\x89PNG")
    (tmp_path / "b" / "0.png").rename(tmp_path / "b" / "0.heic")
    with pytest.raises(DataError, match=r"3\.png is not an image.*leave all that cannot be read out with folder-readable:PATH"):
        opened(tmp_path)
    found = opened(tmp_path, "folder-readable")
    assert sum(sizes(found)) == 14
    assert found.remarks == (f"2 images in it that cannot be read are left out, such as {tmp_path / 'a' / '3.png'}",)


def test_a_folder_without_a_single_image_that_can_be_read_is_told(tmp_path: Path) -> None:
    for file in write(tmp_path).rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"no image below .* can be read"):
        opened(tmp_path, "folder-readable")
