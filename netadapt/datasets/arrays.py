"""Arrays out of .npz files, and pictures out of the bytes in them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from netadapt.datasets import DataError

Array = npt.NDArray[Any]


def read_arrays(file: Path, names: Sequence[str], what: str) -> dict[str, Array]:
    """The arrays of these names. `DataError` if one is missing, or the file would have to be unpickled."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except KeyError as exc:
        raise DataError(f"{file} is not {what} as we know it: it must hold {', '.join(names)}") from exc
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as exc:
        raise DataError(f"{file} is not an .npz file of plain arrays, or damaged") from exc  # numpy would advise to unpickle it


def read_picture(data: Array) -> Image.Image:
    """A picture out of its file's bytes, uint8. `ValueError` if they are none."""
    try:
        with Image.open(io.BytesIO(data.tobytes())) as picture:
            picture.load()
            return picture.copy()
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as exc:
        raise ValueError("not a picture") from exc
