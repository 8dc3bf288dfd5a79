"""The datasets that can be opened, by a name or a path. A new dataset is one module and one line in DATASETS.

Torch is not imported here: options and errors list the datasets from this registry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from device_agents.support.text import did_you_mean
from netadapt.errors import NetAdaptError


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


def _is_cifar10(path: Path) -> bool:
    return path.is_file() or any(path.glob("data_batch_*.bin"))


DATASETS: Mapping[str, DatasetEntry] = {
    "digits": DatasetEntry("netadapt.training.datasets.digits:load_digits", "digits"),
    "cifar10": DatasetEntry("netadapt.training.datasets.cifar10:load_cifar10", "cifar10:PATH", _is_cifar10),
    "folder": DatasetEntry("netadapt.training.datasets.folder:load_folder", "folder:PATH", Path.is_dir),
    "nyu": DatasetEntry("netadapt.training.datasets.nyu:load_nyu", "nyu:PATH"),
    "scenes": DatasetEntry("netadapt.training.datasets.scenes:load_scenes", "scenes"),
}


def usages() -> str:
    """The forms in which users write the datasets after --data, for help texts and errors."""
    return ", ".join(entry.usage for entry in DATASETS.values())


def name_and_path(spec: str) -> tuple[str, str]:
    """The name of the dataset and the path for its loader, from `NAME`, `NAME:PATH` or a path. `DataError` for anything else."""
    name, colon, path = spec.partition(":")
    if name in DATASETS:
        return name, path
    if not Path(spec).exists():
        if colon or "/" in spec or "." in spec:
            raise DataError(f"there is no dataset at {spec}; give a path, or one of {usages()}")
        raise DataError(f"there is no dataset and no path {spec!r}; {did_you_mean(spec, DATASETS)}")
    for known, entry in DATASETS.items():
        if entry.recognises(Path(spec)):
            return known, spec
    raise DataError(f"{spec} is neither a file nor a folder; give a path to one, or one of {usages()}")
