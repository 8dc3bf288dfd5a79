"""All the families of networks that are tried, with the shapes of their inputs."""

from __future__ import annotations

from collections.abc import Callable

from families import NETWORKS as OF_IMAGES
from more_families import MORE_NETWORKS, OPEN
from sequence_families import LENGTH, SEQUENCES
from sharing_families import NOT_IN_TFLITE, SHARING
from torch import nn

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = OF_IMAGES | MORE_NETWORKS | SHARING | SEQUENCES
"""As NETWORKS of tests/families.py."""
EVERY: dict[str, Callable[[], nn.Module]] = {name: make for name, (make, _) in NETWORKS.items()} | OPEN | NOT_IN_TFLITE
"""With those that fall short."""


def shape_of(name: str) -> tuple[int, ...]:
    """The shape of a family's input."""
    return LENGTH if name in SEQUENCES else (1, 3, 32, 32)
