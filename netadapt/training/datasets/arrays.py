"""Arrays out of .npz files, and images out of the bytes in them."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from netadapt.training.datasets import DataError

Array = npt.NDArray[Any]
MOST_RATIO, FREE_BYTES = 100, 64_000_000
"""How many times larger than packed arrays may be unpacked, beyond what harms nobody."""
MOST_PIXELS = 40_000_000
DAMAGE = (
    OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
    RuntimeError,  # a part that is encrypted, or packed in a way that zipfile does not know
    MemoryError,  # a part that claims to be larger than it is
)  # fmt: skip
"""What numpy and zipfile raise, depending on where in a damaged file they stumble."""
NO_IMAGE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_arrays(file: Path, names: Sequence[str], what: str) -> dict[str, Array]:
    """The arrays of these names. `DataError` if one is missing, the file would have to be unpickled, or it is a bomb."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            unpacked_bytes = sum(item.file_size for item in archive.zip.infolist())
            if unpacked_bytes > FREE_BYTES + MOST_RATIO * file.stat().st_size:
                raise DataError(f"{file} would unpack to {unpacked_bytes / 1e6:.0f} MB, which no {what} of its size does")
            return {name: archive[name] for name in names}
    except KeyError as exc:
        raise DataError(f"{file} is not {what} as we know it: it must hold {', '.join(names)}") from exc
    except DAMAGE as exc:
        raise DataError(f"{file} is not an .npz file of plain arrays, or damaged") from exc  # numpy would advise to unpickle it


def read_image(data: Array) -> Image.Image:
    """An image out of its file's bytes, uint8. `ValueError` if they are none."""
    try:
        with Image.open(io.BytesIO(data.tobytes())) as image:
            check_pixels(image)
            image.load()
            return image.copy()
    except NO_IMAGE as exc:
        raise ValueError("not an image") from exc


def check_pixels(image: Image.Image) -> None:
    """`ValueError`, before they are unpacked, for more of them than a photograph has."""
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"an image of {image.width} by {image.height} pixels is too large")
