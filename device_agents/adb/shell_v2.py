"""The packets of adb's shell, version 2 (Android 7 and later): an id of one byte, a length in four, little-endian, and the data.

They separate standard output, standard error and the exit code; version 1 mixes the first two and lacks the last.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

HEADER = struct.Struct("<BI")
LONGEST_BYTES = 16 << 20
"""No device sends more than a megabyte at once; a longer packet is not of this protocol."""


class Kind(IntEnum):
    """The content of a packet."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    EXIT = 3
    """One byte: the exit code, or 128 plus the number of the signal."""
    CLOSE_STDIN = 4
    WINDOW_SIZE = 5


@dataclass(frozen=True, slots=True)
class Packet:
    kind: int
    """A Kind, or a number that later versions may send."""
    data: bytes


def pack(kind: int, data: bytes = b"") -> bytes:
    return HEADER.pack(kind, len(data)) + data


class PacketParser:
    """Packets from bytes that arrive in pieces of any size."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that are complete now. `ValueError` if the bytes are not packets."""
        self._pending += data
        packets: list[Packet] = []
        while (packet := self._next()) is not None:
            packets.append(packet)
        return packets

    def _next(self) -> Packet | None:
        if len(self._pending) < HEADER.size:
            return None
        kind, length = HEADER.unpack_from(self._pending)
        if length > LONGEST_BYTES:
            raise ValueError(f"a shell packet of {length} bytes")
        end = HEADER.size + length
        if len(self._pending) < end:
            return None
        packet = Packet(kind, bytes(self._pending[HEADER.size : end]))
        del self._pending[:end]
        return packet
