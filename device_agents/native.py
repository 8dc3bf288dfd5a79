"""temporary"""

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Built:
    description: str


def build(target: str, out: Path, ndk: Path | None = None) -> Built:
    raise NotImplementedError


def build_cached(target: str) -> Path:
    raise NotImplementedError
