"""One connection straight to the adb daemon of a device, over TCP, with any number of open services on it.

adb_shell makes the connection, signs and packs messages. What arrives after that is distributed by a thread of ours, because
adb_shell's own reader serves one service at a time, loses the end of the others, and loses its place in the stream after a timeout.
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import threading
import time
from collections.abc import Sequence

from adb_shell import constants
from adb_shell.adb_device import AdbDevice
from adb_shell.adb_message import AdbMessage, checksum, unpack
from adb_shell.transport.base_transport import BaseTransport

from device_agents.adb.keys import Signer
from device_agents.adb.services import ANSWER_S

BANNER = b"features=shell_v2,cmd,stat_v2"


class ServiceRefused(Exception):
    """The device answered that it does not offer the service."""


class Transport(BaseTransport):  # type: ignore[misc]
    """A socket that sends all data, at once, and raises when the other side has gone; adb_shell's own does none of these."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._socket: socket.socket | None = None

    def connect(self, transport_timeout_s: float | None) -> None:
        self._socket = socket.create_connection(self._address, timeout=transport_timeout_s)
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # messages are small, and each is answered
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # the other side was faster
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        connection = self._connected()
        if not select.select([connection], [], [], transport_timeout_s)[0]:
            raise TimeoutError("the device does not answer")
        data = connection.recv(numbytes)
        if not data:
            raise ConnectionResetError("the device has closed the connection")
        return data

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        self._connected().sendall(data)
        return len(data)

    def exactly(self, count: int) -> bytes:
        """This many bytes, however long they take."""
        data = bytearray()
        while len(data) < count:
            data += self.bulk_read(count - len(data), None)
        return bytes(data)

    def _connected(self) -> socket.socket:
        if self._socket is None or self._socket.fileno() < 0:
            raise ConnectionResetError("the connection is closed")
        return self._socket


class AdbLink:
    """The connection: opens services, and hands each message that arrives to its service."""

    def __init__(self, host: str, port: int) -> None:
        self._transport = Transport(host, port)
        self._device = AdbDevice(self._transport, banner=BANNER)
        self._pipes: dict[int, LinkPipe] = {}
        self._last_id = 0
        self._table, self._sending = threading.Lock(), threading.Lock()
        self._broken = False
        self.asked = False
        """The device knows none of our keys, and asks a person on its screen to accept one."""

    def connect(self, keys: Sequence[Signer], *, asked_s: float) -> None:
        """Connect; a person has `asked_s` seconds to accept a key. Raises what adb_shell and sockets raise."""
        self._device.connect(
            rsa_keys=list(keys),
            transport_timeout_s=ANSWER_S,
            auth_timeout_s=asked_s,
            read_timeout_s=max(ANSWER_S, asked_s),
            auth_callback=self._ask,
        )
        threading.Thread(target=self._sort, daemon=True).start()

    def _ask(self, device: AdbDevice) -> None:
        self.asked = True

    def open(self, service: str, timeout_s: float = ANSWER_S) -> LinkPipe:
        """Open a service. `ServiceRefused`; `ConnectionError` if the connection is lost, `TimeoutError` without an answer."""
        with self._table:
            if self._broken:
                raise ConnectionResetError("the connection is lost")
            self._last_id += 1
            pipe = self._pipes[self._last_id] = LinkPipe(self, self._last_id, self._device.max_chunk_size)
        self.send(constants.OPEN, pipe.ours, 0, service.encode() + b"\0")
        pipe.wait_until_open(timeout_s)
        if pipe.opened:  # and perhaps closed again: a short command may have ended before this thread runs again
            return pipe
        if self._broken:
            raise ConnectionResetError("the connection is lost")
        raise ServiceRefused(service.partition(":")[0])

    def send(self, command: bytes, ours: int, theirs: int, data: bytes = b"") -> None:
        """Send a message in one piece: header and data apart would wait for each other's acknowledgement."""
        message = AdbMessage(command, ours, theirs, data)
        with self._sending:
            self._transport.bulk_write(message.pack() + data, None)

    def close(self) -> None:
        self._broken = True
        self._transport.close()

    def _sort(self) -> None:
        """What the thread does: hand every message to its pipe, until the connection is lost."""
        with contextlib.suppress(OSError, ValueError):
            while True:
                command, theirs, ours, data = self._receive()
                pipe = self._pipes.get(ours)
                if pipe is not None and pipe.take(command, theirs, data):
                    with self._table:
                        del self._pipes[ours]
        with self._table:
            self._broken = True
            for pipe in self._pipes.values():
                pipe.end()
        self._transport.close()

    def _receive(self) -> tuple[bytes, int, int, bytes]:
        """(command, their id, our id, data) of the next message. `ValueError` if it is not a message of adb's."""
        word, theirs, ours, length, expected = unpack(self._transport.exactly(constants.MESSAGE_SIZE))
        command = constants.WIRE_TO_ID.get(word)
        if command is None or length > constants.MAX_ADB_DATA:
            raise ValueError(f"not a message of adb's: {word:#x}")
        data = self._transport.exactly(length)
        if checksum(data) != expected:
            raise ValueError("a message arrived damaged")
        return command, theirs, ours, data


class LinkPipe:
    """One service. Data is sent only once the device has acknowledged the data before, as adb's protocol demands."""

    def __init__(self, link: AdbLink, ours: int, chunk_bytes: int) -> None:
        self._link, self.ours, self._chunk_bytes = link, ours, chunk_bytes
        self._theirs = 0
        self._acknowledged = threading.Semaphore(0)
        self._arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._closed = False
        self.ended = False

    @property
    def opened(self) -> bool:
        """Whether the device has given the service a number, which is never 0."""
        return self._theirs != 0

    def wait_until_open(self, timeout_s: float) -> None:
        if not self._acknowledged.acquire(timeout=timeout_s):
            raise TimeoutError("the device does not answer")
        self._acknowledged.release()

    def send(self, data: bytes, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        for start in range(0, len(data), self._chunk_bytes):
            if not self._acknowledged.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise TimeoutError("the device accepts no more data")
            if self.ended:
                self._acknowledged.release()
                raise ConnectionResetError("the device has closed the service")
            self._link.send(constants.WRTE, self.ours, self._theirs, data[start : start + self._chunk_bytes])

    def receive(self, timeout_s: float) -> bytes:
        try:
            data = self._arrived.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError("the device sends nothing") from None
        if not data:
            self._arrived.put(b"")  # for the next call, too, this is the end
        return data

    def close(self) -> None:
        if not self._closed and not self.ended:
            with contextlib.suppress(OSError):  # the connection is lost, and the service closed by that
                self._link.send(constants.CLSE, self.ours, self._theirs)
        self._closed = True

    def take(self, command: bytes, theirs: int, data: bytes) -> bool:
        """Handle a message for this service; returns whether it was the last. Called by the link's thread."""
        if command == constants.OKAY:
            self._theirs = theirs
            self._acknowledged.release()
        elif command == constants.WRTE:
            # acknowledged at once, not when it is read: a device that waits for it would not read what we are sending
            self._link.send(constants.OKAY, self.ours, self._theirs)
            self._arrived.put(data)
        elif command == constants.CLSE:
            if not self._closed and self._theirs:
                self._link.send(constants.CLSE, self.ours, self._theirs)
            self.end()
            return True
        return False

    def end(self) -> None:
        self.ended = True
        self._arrived.put(b"")
        self._acknowledged.release()
