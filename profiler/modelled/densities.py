"""How many values of each layer of a network are not zero, as `netadapt densities` measures it on images.

The file is JSON. Layers have the names of their nodes in the network, which its exported ONNX file and its narrower versions share.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from device_agents.support.atomic import write_whole
from device_agents.support.dataclass_json import read_as
from device_agents.support.strict_json import read_json
from profiler.errors import HardwareError
from profiler.layers.graph import Node

FORMAT = 1


@dataclass(frozen=True, slots=True)
class LayerDensity:
    """The shares of a layer's values that are not zero, from 0 to 1. `ValueError` for other numbers."""

    input: float = 1.0
    weight: float = 1.0
    output: float = 1.0

    def __post_init__(self) -> None:
        if not all(0 <= share <= 1 for share in (self.input, self.weight, self.output)):
            raise ValueError(f"{self} has a share that is not from 0 to 1")


@dataclass(frozen=True, slots=True)
class Densities:
    """The densities of one network."""

    network: str
    data: str
    """Where the images came from."""
    images: int
    layers: Mapping[str, LayerDensity]
    """By the names of the network's nodes."""

    def sentence(self) -> str:
        """Whose zeros these are, for people."""
        return f"zeros of {len(self.layers)} layers of {self.network} on {self.images} images of {self.data}"

    def check(self, nodes: Iterable[Node], network: str) -> None:
        """`HardwareError` if these are the nodes of a network that none of the layers is in."""
        if not any(node.name in self.layers for node in nodes):
            raise HardwareError(
                f"the densities are those of {self.network}, and {network} has no layer of their names, such as "
                f"{next(iter(self.layers), 'none')}; measure them for it with `netadapt densities`"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Any) -> Densities:
        """The inverse of `to_dict`. `ValueError` or `KeyError` for anything else."""
        return read_as(cls, plain)


def write_densities(found: Densities, path: Path) -> None:
    """Write the file atomically. `HardwareError` if it cannot be written."""
    write_whole(path, json.dumps({"format": FORMAT, **found.to_dict()}, indent=1) + "\n", HardwareError)


def read_densities(path: Path) -> Densities:
    """`HardwareError` in one sentence for anything that is not such a file."""
    try:
        plain = read_json(path.read_bytes())
        if plain["format"] != FORMAT:
            raise HardwareError(
                f"{path} has densities of format {plain['format']}, this version reads {FORMAT}; measure them again with "
                "`netadapt densities`"
            )
        return Densities.from_dict(plain)
    except OSError as exc:
        raise HardwareError(f"{path} cannot be read: {exc.strerror}; `netadapt densities` makes such a file") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise HardwareError(f"{path} is not a file of densities ({exc}); `netadapt densities` makes one") from exc
