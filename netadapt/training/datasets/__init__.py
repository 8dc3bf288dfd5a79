"""The datasets that can be opened, by a name or a path. A new dataset is one module and one line in DATASETS.

Torch is not imported here: options and errors list the datasets from this registry.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from device_agents.support.text import did_you_mean
from netadapt.errors import NetAdaptError
from netadapt.users_code import is_name


class DataError(NetAdaptError):
    """A dataset is missing, damaged, too large for the memory, or too small to be split."""


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """The facts of a dataset that are known before its module, which needs torch, is imported."""

    address: str
    """The module:function that loads it: from the path after the colon ("" for none) and a resolution in pixels to
    `LabelledImages`."""
    usage: str
    """The form in which users write it after --data."""
    recognises: Callable[[Path], bool] = lambda _path: False
    """A function that is true for a path, given without a name, that holds this dataset; the first such entry is used."""


def batches_in(folder: Path) -> list[Path]:
    """The folders of CIFAR's batches: this one, or those in it, as torchvision and Keras leave them."""
    places = (folder, *(child for child in sorted(folder.glob("cifar-*")) if child.is_dir()))
    hundred = ("train", "test", "meta")
    return [place for place in places if any(place.glob("data_batch_*")) or all((place / name).is_file() for name in hundred)]


def idx_in(folder: Path) -> list[Path]:
    """The folders of idx files: this one, or those in it, as torchvision leaves them."""
    places = (folder, folder / "raw", folder / "gzip", *sorted(folder.glob("*/raw")))
    return [place for place in places if any(file.is_file() for file in place.glob("*images?idx3?ubyte*"))]


def _is_cifar10(path: Path) -> bool:
    if path.is_dir():
        return bool(batches_in(path))
    if path.suffix.lower() != ".npz":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return "webp.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return "cifar" in path.name.lower()  # its loader says that the file is damaged


def _is_idx(path: Path) -> bool:
    return path.is_dir() and bool(idx_in(path))


DATASETS: Mapping[str, DatasetEntry] = {
    "digits": DatasetEntry("netadapt.training.datasets.digits:load_digits", "digits"),
    "clutter": DatasetEntry("netadapt.training.datasets.clutter:load_clutter", "clutter"),
    "cifar10": DatasetEntry("netadapt.training.datasets.cifar10:load_cifar10", "cifar10:PATH", _is_cifar10),
    "idx": DatasetEntry("netadapt.training.datasets.plain_arrays:load_idx", "idx:PATH", _is_idx),
    "npz": DatasetEntry(
        "netadapt.training.datasets.plain_arrays:load_npz",
        "npz:PATH",
        lambda path: path.is_file() and path.suffix.lower() == ".npz",
    ),
    "folder": DatasetEntry("netadapt.training.datasets.folder:load_folder", "folder:PATH", Path.is_dir),
    "folder-readable": DatasetEntry("netadapt.training.datasets.folder:load_readable", "folder-readable:PATH"),
    "nyu": DatasetEntry("netadapt.training.datasets.nyu:load_nyu", "nyu:PATH"),
    "scenes": DatasetEntry("netadapt.training.datasets.scenes:load_scenes", "scenes"),
}

_ARCHIVE = "an archive; unpack it and give the folder"
_FILES: Mapping[str, str] = {
    ".zip": _ARCHIVE, ".tar": _ARCHIVE, ".tgz": _ARCHIVE, ".gz": _ARCHIVE, ".7z": _ARCHIVE, ".rar": _ARCHIVE, ".bz2": _ARCHIVE,
    ".xz": _ARCHIVE, ".zst": _ARCHIVE,
    ".mat": "a MATLAB file; save its images and labels with numpy.savez as x_train, y_train, x_test and y_test",
    ".pt": "a PyTorch file; save its images and labels with numpy.savez as x_train, y_train, x_test and y_test",
    ".pkl": "a pickle, and reading it could run code; save its arrays with numpy.savez as x_train, y_train, x_test and y_test",
    ".npy": "a single array; save images and labels together with numpy.savez as x_train and y_train",
    ".h5": "an HDF5 file; save its images and labels with numpy.savez as x_train, y_train, x_test and y_test",
    ".parquet": "a table; save its images as files, in a folder with a subfolder per class",
    ".arrow": "a table; save its images as files, in a folder with a subfolder per class",
    ".csv": "a table; save its images as files, in a folder with a subfolder per class, or with numpy.savez as x_train and y_train",
    ".tfrecord": "a TFRecord file; save its images as files, in a folder with a subfolder per class",
    ".json": "a file of annotations; give the folder of images, with a subfolder per class",
    ".py": "Python; name its function that makes the data, as in mydata.py:make_data",
    ".mdb": "an LMDB database; save its images as files, in a folder with a subfolder per class",
    ".mp4": "a video; save its images as files, in a folder with a subfolder per class",
    ".part": "an unfinished download; get the whole file",
}  # fmt: skip
"""What a file that is no dataset of ours is by its ending, and how to get on."""
_ALIKE: Mapping[str, str] = {
    ".tbz2": ".zip",
    ".pth": ".pt",
    ".pickle": ".pkl",
    ".hdf5": ".h5",
    ".tsv": ".csv",
    ".tfrecords": ".tfrecord",
    ".xml": ".json",
    ".jsonl": ".json",
    ".yaml": ".json",
    ".yml": ".json",
    ".xlsx": ".csv",
    ".feather": ".parquet",
    ".lmdb": ".mdb",
    ".avi": ".mp4",
    ".mov": ".mp4",
    ".mkv": ".mp4",
    ".crdownload": ".part",
}


_KNOWN_AS: Mapping[str, str] = {
    **dict.fromkeys(("mnist", "fashion_mnist", "fashion-mnist", "fashionmnist", "emnist", "kmnist", "qmnist"), "idx:PATH"),
    **dict.fromkeys(("cifar", "cifar-10", "cifar100", "cifar-100"), "cifar10:PATH"),
    **dict.fromkeys(("imagenet", "imagenette", "imagefolder", "images", "flowers", "pets"), "folder:PATH"),
    "medmnist": "npz:PATH",
}
"""How to write datasets that are known by these names; they have to be there, as nothing is downloaded."""
_ONE_OF_SEVERAL = re.compile(r"-\d+-of-\d+$")
"""The end of the name of a file that is kept in several."""


def what_it_is(file: Path) -> str | None:
    """What a file that is no dataset of ours is by its ending, and how to get on; None if its ending tells nothing."""
    ending = _ONE_OF_SEVERAL.sub("", file.suffix.lower())
    return _FILES.get(_ALIKE.get(ending, ending))


def usages() -> str:
    """The forms in which users write the datasets after --data, for help texts and errors."""
    return ", ".join([*(entry.usage for entry in DATASETS.values()), "mydata.py:make_data"])


def is_users(spec: str) -> bool:
    """True if it names a user's function, `file.py:function` or `module:function`."""
    return spec.partition(":")[0] not in DATASETS and not Path(spec).exists() and is_name(spec)


def name_and_path(spec: str) -> tuple[str, str]:
    """The name of the dataset and the path for its loader, from `NAME`, `NAME:PATH` or a path. `DataError` for anything else."""
    name, colon, path = spec.partition(":")
    if name in DATASETS:
        return name, path
    if not Path(spec).exists():
        if colon or "/" in spec or "." in spec:
            fetched = " (nothing is downloaded)" if "://" in spec else ""
            raise DataError(f"there is no dataset at {spec}{fetched}; give a path, or one of {usages()}")
        raise DataError(f"there is no dataset and no path {spec!r}; {did_you_mean(spec, DATASETS, _KNOWN_AS)}")
    for known, entry in DATASETS.items():
        if entry.recognises(Path(spec)):
            return known, spec
    if Path(spec).is_file():
        what = what_it_is(Path(spec)) or f"no dataset by its ending; give a folder, an .npz file, or one of {usages()}"
        raise DataError(f"{spec} is {what}")
    raise DataError(f"{spec} is neither a file nor a folder; give a path to one, or one of {usages()}")


def absolute(spec: str) -> str:
    """The same dataset with an absolute path, if it has one: `folder:images` becomes `folder:/home/me/images`."""
    name, path = name_and_path(spec)
    if not path or not Path(path).exists():
        return spec
    whole = str(Path(path).resolve())
    return f"{name}:{whole}" if spec.startswith(f"{name}:") else whole
