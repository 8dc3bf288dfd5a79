"""Runs a whole model once on this machine, to record what its layers are fed.

A layer alone is fed with this where made-up values will not do: an index has to be inside its table, a new shape has to fit, a loop
has to run as often as in the network. The model runs in a process of its own, because a division of whole numbers by zero ends it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_VALUE_BYTES = 1 << 24
"""The largest tensor that is recorded: the file of a layer carries it to the device."""
MOST_BYTES = 1 << 28
"""The most that is recorded of a model."""
_PATIENCE_S = 120.0
_MADE_UP = """
import sys
import numpy as np

def made_up(place, shape, dtype):
    step, mask = 0xD1342543DE82EF95, 2**64 - 1
    start = np.uint64((0x9E3779B97F4A7C15 + (place << 40) * step) & mask)
    size = int(np.prod(shape, dtype=np.int64))
    z = np.arange(1, size + 1, dtype=np.uint64) * np.uint64(step) + start
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    if dtype.kind == "f":
        values = (z >> np.uint64(40)) / 2**23 - 1
    else:
        values = z >> np.uint64(63 if dtype.kind == "b" or dtype.itemsize >= 4 else 61)
    return values.astype(dtype).reshape(shape)

folder = sys.argv[1]
"""
"""The inputs are those of PROTOCOL.md for the seed 1, so that what depends on them is what it was on the device."""


def within_bounds(sizes_bytes: Mapping[Any, int]) -> list[Any]:
    """The tensors that can be recorded, by their sizes: the smallest come first, for indices and shapes are small."""
    found, total = [], 0
    for tensor, size_bytes in sorted(sizes_bytes.items(), key=lambda item: item[1]):
        if size_bytes > MOST_VALUE_BYTES or total + size_bytes > MOST_BYTES:
            break
        found.append(tensor)
        total += size_bytes
    return found


def run_apart(script: str, files: Mapping[str, bytes], *arguments: str) -> dict[str, NDArray[Any]]:
    """The arrays that a script saves as `values.npz` in its `folder`, which has these files; none if it fails.

    The script finds its arguments from `sys.argv[2]` on, and a function `made_up(place, shape, dtype)` for the inputs of a model.
    """
    with tempfile.TemporaryDirectory(prefix="recorded_") as name:
        folder = Path(name)
        for file, data in files.items():
            (folder / file).write_bytes(data)
        command = [sys.executable, "-c", _MADE_UP + script, name, *arguments]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            return {}
        if done.returncode or not (folder / "values.npz").exists():
            return {}
        with np.load(folder / "values.npz", allow_pickle=False) as values:
            return {key: values[key] for key in values.files}


def remark_on(fed: Sequence[str], made_up: Sequence[str]) -> str | None:
    """Which kinds of layers are measured with the network's own values, and which could not be; None if none needs them."""
    said = []
    if fed:
        said.append(f"{_listed(fed)} measured alone with values that the network itself feeds")
    if made_up:
        said.append(f"{_listed(made_up)} measured alone with made-up values, for the network's own are too large or unknown")
    return "; ".join(said) or None


def _listed(kinds: Sequence[str]) -> str:
    names = list(dict.fromkeys(kinds))
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"
