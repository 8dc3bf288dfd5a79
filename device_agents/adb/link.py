"""One connection straight to the adb daemon of a device, over TCP, with any number of open services on it.

adb_shell shakes hands, signs and packs messages. What travels after that is sorted by a thread of ours: its own reader serves one
service at a time, loses the end of the others, and loses its place in the stream when a wait times out.
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
    """The device is there and does not offer the service."""


class Transport(BaseTransport):  # type: ignore[misc]
    """A socket that sends all it is given, at once, and says when the other side has gone: adb_shell's own does none of these."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._socket: socket.socket | None = None

    def connect(self, transport_timeout_s: float | None) -> None:
        self._socket = socket.create_connection(self._address, timeout=transport_timeout_s)
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # messages are small, and answered one by one
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
        """So many bytes, waiting for them as long as it takes."""
        data = bytearray()
        while len(data) < count:
            data += self.bulk_read(count - len(data), None)
        return bytes(data)

    def _connected(self) -> socket.socket:
        if self._socket is None or self._socket.fileno() < 0:
            raise ConnectionResetError("the connection is closed")
        return self._socket


class AdbLink:
    """The connection: opens services, and brings what arrives to where it belongs."""

    def __init__(self, host: str, port: int) -> None:
        self._transport = Transport(host, port)
        self._device = AdbDevice(self._transport, banner=BANNER)
        self._pipes: dict[int, LinkPipe] = {}
        self._last_id = 0
        self._table, self._sending = threading.Lock(), threading.Lock()
        self._broken = False
        self.asked = False
        """The device knew none of our keys: it was offered one, and a person there is asked."""

    def connect(self, keys: Sequence[Signer], *, asked_s: float) -> None:
        """Shake hands; a person has `asked_s` to accept a key. Raises what adb_shell and sockets raise."""
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
        """`ServiceRefused`; `ConnectionError` if the link is broken, `TimeoutError` if the device does not answer."""
        with self._table:
            if self._broken:
                raise ConnectionResetError("the connection has broken off")
            self._last_id += 1
            pipe = self._pipes[self._last_id] = LinkPipe(self, self._last_id, self._device.max_chunk_size)
        self.send(constants.OPEN, pipe.ours, 0, service.encode() + b"\0")
        pipe.wait_until_open(timeout_s)
        if pipe.opened:  # and perhaps at its end already: a short command is over before this thread runs again
            return pipe
        if self._broken:
            raise ConnectionResetError("the connection has broken off")
        raise ServiceRefused(service.partition(":")[0])

    def send(self, command: bytes, ours: int, theirs: int, data: bytes = b"") -> None:
        """In one piece: two would wait for each other's acknowledgements."""
        message = AdbMessage(command, ours, theirs, data)
        with self._sending:
            self._transport.bulk_write(message.pack() + data, None)

    def close(self) -> None:
        self._broken = True
        self._transport.close()

    def _sort(self) -> None:
        """The thread: until the link breaks, every message to its pipe."""
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
        """(command, their id, our id, data). `ValueError` for what is no message."""
        word, theirs, ours, length, expected = unpack(self._transport.exactly(constants.MESSAGE_SIZE))
        command = constants.WIRE_TO_ID.get(word)
        if command is None or length > constants.MAX_ADB_DATA:
            raise ValueError(f"no message of adb's: {word:#x}")
        data = self._transport.exactly(length)
        if checksum(data) != expected:
            raise ValueError("a message arrived damaged")
        return command, theirs, ours, data


class LinkPipe:
    """One service. What is sent waits until the device has acknowledged what was sent before, as adb demands."""

    def __init__(self, link: AdbLink, ours: int, chunk_bytes: int) -> None:
        self._link, self.ours, self._chunk_bytes = link, ours, chunk_bytes
        self._theirs = 0
        self._acknowledged = threading.Semaphore(0)
        self._arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._closed = False
        self.ended = False

    @property
    def opened(self) -> bool:
        """The device has given it a number, which is never 0."""
        return self._theirs != 0

    def wait_until_open(self, timeout_s: float) -> None:
        if not self._acknowledged.acquire(timeout=timeout_s):
            raise TimeoutError("the device does not answer")
        self._acknowledged.release()

    def send(self, data: bytes, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        for start in range(0, len(data), self._chunk_bytes):
            if not self._acknowledged.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise TimeoutError("the device takes no more")
            if self.ended:
                self._acknowledged.release()
                raise ConnectionResetError("the device has closed the service")
            self._link.send(constants.WRTE, self.ours, self._theirs, data[start : start + self._chunk_bytes])

    def receive(self, timeout_s: float) -> bytes:
        try:
            data = self._arrived.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError("the device says nothing") from None
        if not data:
            self._arrived.put(b"")  # the end stays the end
        return data

    def close(self) -> None:
        if not self._closed and not self.ended:
            with contextlib.suppress(OSError):  # then it is closed anyway
                self._link.send(constants.CLSE, self.ours, self._theirs)
        self._closed = True

    def take(self, command: bytes, theirs: int, data: bytes) -> bool:
        """A message of this service's; whether it was its last. Called by the link's thread."""
        if command == constants.OKAY:
            self._theirs = theirs
            self._acknowledged.release()
        elif command == constants.WRTE:
            # At once, not when it is read: a device that waits for this would not read what we are sending.
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
