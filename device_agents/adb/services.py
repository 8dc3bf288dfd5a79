"""The two services of an Android device that we use: its shell (version 2), and `sync:`, which writes files."""

from __future__ import annotations

import contextlib
import stat
import struct
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from device_agents.adb.shell_v2 import Kind, Packet, PacketParser, pack
from device_agents.errors import LinkLost, StoreFailed, make_room
from device_agents.remote import Channel, RemoteAgent, Source

SHELL = "shell,v2,raw:"
SYNC = "sync:"
DEFAULT_FOLDER = "/data/local/tmp"
"""A folder that the shell's user may write to and run programs from; /sdcard is mounted so that nothing can be run from it."""
ANSWER_S = 10.0
"""Time for a device to answer that it opens a service."""

SYNC_HEADER = struct.Struct("<4sI")
CHUNK_BYTES = 64 << 10
"""The most that a device accepts in one DATA block."""
BATCH = 16
"""DATA blocks that are sent at once."""


class Pipe(Protocol):
    """One open service: bytes in both directions."""

    def send(self, data: bytes, timeout_s: float) -> None:
        """Send all of it. `TimeoutError` if the other side does not accept it in time, another `OSError` if the pipe has ended."""
        ...

    def receive(self, timeout_s: float) -> bytes:
        """What has arrived; b"" at the end, however the pipe ended. `TimeoutError` if nothing arrives in time."""
        ...

    def close(self) -> None:
        """Never fails; may be called twice."""
        ...


class AndroidAgent(RemoteAgent):
    """An Android device. A subclass says how its services are reached: through adb's server, or straight."""

    default_folder = DEFAULT_FOLDER

    @abstractmethod
    def _service(self, name: str) -> Pipe:
        """Open a service. `LinkLost` if there is no connection."""

    def _open(self, line: str) -> Channel:
        return ShellChannel(self._service(SHELL + line))

    def _upload(self, data: bytes, path: str, timeout_s: float) -> None:
        with contextlib.closing(self._service(SYNC)) as pipe:
            write_file(pipe, data, path, timeout_s=timeout_s, address=self.address)


class ShellChannel:
    """A shell command, as RemoteAgent expects it. The exit code is ignored: RemoteAgent's own last line is more reliable."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe, self._parser = pipe, PacketParser()
        self._packets: deque[Packet] = deque()

    def receive(self, timeout_s: float) -> tuple[Source, bytes]:
        deadline = time.monotonic() + timeout_s
        while True:
            while self._packets:
                packet = self._packets.popleft()
                if packet.kind == Kind.STDOUT:
                    return Source.OUT, packet.data
                if packet.kind == Kind.STDERR:
                    return Source.ERR, packet.data
                if packet.kind == Kind.EXIT:
                    return Source.END, b""
            data = self._pipe.receive(_left(deadline))
            if not data:
                return Source.END, b""
            try:
                self._packets.extend(self._parser.feed(data))
            except ValueError as exc:
                raise LinkLost(f"the device sent an invalid message: {exc}; reconnect it") from exc

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(pack(Kind.STDIN, data), ANSWER_S)

    def close(self) -> None:
        self._pipe.close()


def write_file(pipe: Pipe, data: bytes, path: str, *, timeout_s: float, address: str) -> None:
    """Write a file, executable, through `sync:`. The device answers once, at the end; it does not say how much it has written.

    `StoreFailed` if it refuses, `LinkLost` if the connection is lost or this takes longer than `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    try:
        for block in _sync_blocks(data, path):
            pipe.send(block, _left(deadline))
        answer = _at_least(SYNC_HEADER.size, b"", pipe, deadline)
        word, length = SYNC_HEADER.unpack_from(answer)
        if word == b"FAIL":
            answer = _at_least(SYNC_HEADER.size + min(length, CHUNK_BYTES), answer, pipe, deadline)
            why = answer[SYNC_HEADER.size :].decode(errors="replace")
            raise StoreFailed(f"{address} refuses {path}: {why}; {make_room(address)}")
        if word != b"OKAY":
            raise ConnectionError(f"the device sent an invalid message: {word!r}")
        pipe.send(SYNC_HEADER.pack(b"QUIT", 0), _left(deadline))
    except TimeoutError as exc:
        raise LinkLost(f"{address} did not accept {len(data) / 1e6:.1f} MB within {timeout_s:.0f} s; reconnect it") from exc
    except OSError as exc:
        raise LinkLost(f"the connection to {address} was lost during a push: {exc}") from exc


def _sync_blocks(data: bytes, path: str) -> Iterator[bytes]:
    name = f"{path},{stat.S_IFREG | 0o755}".encode()
    yield SYNC_HEADER.pack(b"SEND", len(name)) + name
    view = memoryview(data)
    for start in range(0, len(data), BATCH * CHUNK_BYTES):
        parts: list[bytes | memoryview] = []
        for at in range(start, min(start + BATCH * CHUNK_BYTES, len(data)), CHUNK_BYTES):
            chunk = view[at : at + CHUNK_BYTES]
            parts += [SYNC_HEADER.pack(b"DATA", len(chunk)), chunk]
        yield b"".join(parts)
    yield SYNC_HEADER.pack(b"DONE", int(time.time()))


def _at_least(count: int, data: bytes, pipe: Pipe, deadline: float) -> bytes:
    """The data, with more received until there are `count` bytes."""
    while len(data) < count:
        more = pipe.receive(_left(deadline))
        if not more:
            raise ConnectionError("the connection ended before the device had answered")
        data += more
    return data


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
