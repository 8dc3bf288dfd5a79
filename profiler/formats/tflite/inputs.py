"""Values for the inputs of a .tflite file, kept behind the model in the file itself (PROTOCOL.md, "The inputs").

A runner fills inputs with random numbers. Those of a person's own, and those that a layer is fed inside its network, go with
the file. A runtime does not see them, so that it executes what it would execute otherwise: the file has no such thing as a default.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from profiler.errors import ModelError

_ENTRY, _FOOTER = struct.Struct("<QQ"), struct.Struct("<Q8s")
_MARK = b"INPUTS 1"


def joined(model: bytes, values: Mapping[int, bytes]) -> bytes:
    """A model with the values of inputs, by their places, behind it."""
    if not values:
        return model
    entries = [_ENTRY.pack(place, len(data)) for place, data in values.items()]
    return b"".join((model, *values.values(), *entries, _FOOTER.pack(len(values), _MARK)))


def split(file: bytes) -> tuple[bytes, dict[int, bytes]]:
    """A model alone, and the values of inputs behind it. `ModelError` if these do not fit into the file."""
    count, mark = _FOOTER.unpack(file[-_FOOTER.size :]) if len(file) >= _FOOTER.size else (0, b"")
    if mark != _MARK:
        return file, {}
    begin = len(file) - _FOOTER.size - count * _ENTRY.size
    entries = list(_ENTRY.iter_unpack(file[begin : -_FOOTER.size])) if begin >= 0 else []
    model_bytes = place_bytes = begin - sum(size for _, size in entries)
    if begin < 0 or model_bytes < 0:
        raise ModelError("the values of inputs behind the model do not fit into its file; copy it again")
    values = {}
    for place, size in entries:
        values[place] = file[place_bytes : place_bytes + size]
        place_bytes += size
    return file[:model_bytes], values
