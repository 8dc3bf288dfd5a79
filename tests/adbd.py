"""The daemon at a phone's end of adb, for tests: Google's protocol over TCP on loopback, with links that break.

A message is six little-endian words (command, two arguments, length, checksum, command inverted) and then the data.

    CNXN(version, longest data, banner)     the first in both directions; the host's is answered by AUTH until we know a key of its
    AUTH(1 token | 2 signature | 3 public key, 0, data)
    OPEN(host's id, 0, "service\\0")        answered by OKAY, or by CLSE if there is no such service
    OKAY(sender's id, receiver's id)        opened; or: the last WRTE is taken, the next may come
    WRTE(sender's id, receiver's id, data)  one at a time in each direction of a stream
    CLSE(sender's id, receiver's id)        answered by CLSE

The checksum is the sum of the data's bytes, left out by those of version 0x01000001. What the services do is in adbd_services.py.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from adbd_services import SERVICES
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA1

HEADER = struct.Struct("<6I")
CNXN, AUTH, OPEN, OKAY, WRTE, CLSE = (
    int.from_bytes(name, "little") for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE")
)
TOKEN, SIGNATURE, PUBLIC_KEY = 1, 2, 3
VERSION, LONGEST_BYTES = 0x01000001, 1 << 20
WITH_CHECKSUMS = 0x01000000


@dataclass
class Faults:
    """What goes wrong; may be changed while the daemon runs. A cut happens once, and then has to be set again."""

    cut_after_received: int | None = None
    """Bytes from now on."""
    cut_after_sent: int | None = None
    bytes_per_s: float | None = None
    latency_s: float = 0.0
    """Before each message sent."""
    unauthorised: bool = False
    """Nobody ever accepts a key."""
    short_pushes: int = 0
    """So many files lose their second half, though the push is acknowledged."""
    refused_pushes: int = 0
    """So many files meet a full disk."""


class Adbd:
    """The daemon, running in threads between entering and leaving. Commands of its shell are children of this process."""

    def __init__(self, environment: Mapping[str, str] | None = None, features: str = "shell_v2,cmd,stat_v2") -> None:
        self.faults = Faults()
        self.keys: set[bytes] = set()
        """Public keys that are accepted; a new one is added when it is offered, as if a person had agreed."""
        self.environment = {**os.environ, **(environment or {})}
        self.features = features.split(",")
        self.processes: set[int] = set()
        """Direct children of the shell that run now."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        self._connections: list[Connection] = []

    @property
    def banner(self) -> bytes:
        props = "ro.product.name=simulated;ro.product.model=Simulated_Phone;ro.product.device=simulated"
        return f"device::{props};features={','.join(self.features)}".encode()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Break every connection there is now."""
        for connection in self._connections:
            connection.link.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # until the listener is closed
            while True:
                connection = Connection(self, Link(self._listener.accept()[0], self.faults))
                self._connections.append(connection)
                threading.Thread(target=connection.serve, daemon=True).start()


class Link:
    """A socket with the faults of a link."""

    def __init__(self, connection: socket.socket, faults: Faults) -> None:
        self._socket, self._faults = connection, faults
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            left = self._faults.cut_after_received
            wanted = min(count - len(data), 1 << 16 if left is None else max(left, 1))
            chunk = self._socket.recv(wanted)
            if left is not None:
                self._faults.cut_after_received = left - len(chunk) if left > len(chunk) else None
            if not chunk or (left is not None and left <= len(chunk)):
                self.close()
                raise ConnectionResetError
            self._wait(len(chunk))
            data += chunk
        return data

    def send(self, data: bytes) -> None:
        time.sleep(self._faults.latency_s)
        self._wait(len(data))
        left = self._faults.cut_after_sent
        self._socket.sendall(data[:left])
        if left is not None:
            self._faults.cut_after_sent = left - len(data) if left > len(data) else None
            if left <= len(data):
                self.close()

    def _wait(self, count: int) -> None:
        if self._faults.bytes_per_s:
            time.sleep(count / self._faults.bytes_per_s)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Connection:
    """One host: shakes hands with it, then brings its messages to the streams it has opened."""

    def __init__(self, daemon: Adbd, link: Link) -> None:
        self.daemon, self.link = daemon, link
        self.longest_bytes = LONGEST_BYTES
        self._version = WITH_CHECKSUMS
        self._authorised = False
        self._token = os.urandom(20)
        self._streams: dict[int, Stream] = {}
        self._ids = itertools.count(1)
        self._sending = threading.Lock()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                command, first, second, length, _, inverted = HEADER.unpack(self.link.receive(HEADER.size))
                if command ^ inverted != 0xFFFFFFFF or length > LONGEST_BYTES:
                    break  # as the real one does with what is no message
                self._take(command, first, second, self.link.receive(length))
        self.link.close()
        for stream in list(self._streams.values()):
            stream.hang_up()

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        total = sum(data) & 0xFFFFFFFF if self._version == WITH_CHECKSUMS else 0
        with self._sending:
            self.link.send(HEADER.pack(command, first, second, len(data), total, command ^ 0xFFFFFFFF) + data)

    def _take(self, command: int, first: int, second: int, data: bytes) -> None:
        if command == CNXN:
            self._version, self.longest_bytes = min(first, VERSION), min(second, LONGEST_BYTES)
            self.send(AUTH, TOKEN, 0, self._token)
        elif command == AUTH:
            self._authenticate(first, data)
        elif not self._authorised:
            return
        elif command == OPEN:
            self._open(first, data.rstrip(b"\0").decode())
        elif (stream := self._streams.get(second)) is None:
            return  # it has ended meanwhile
        elif command == OKAY:
            stream.writable.release()
        elif command == WRTE:
            stream.arrived.put(data)
        elif command == CLSE:
            self.close(stream)

    def _authenticate(self, kind: int, data: bytes) -> None:
        if self.daemon.faults.unauthorised and kind == PUBLIC_KEY:
            return  # the question stays on the screen
        if kind == PUBLIC_KEY:
            self.daemon.keys.add(data.rstrip(b"\0").split()[0])
        elif self.daemon.faults.unauthorised or not any(_signed(key, self._token, data) for key in self.daemon.keys):
            self.send(AUTH, TOKEN, 0, self._token)
            return
        self._authorised = True
        self.send(CNXN, VERSION, LONGEST_BYTES, self.daemon.banner)

    def _open(self, theirs: int, service: str) -> None:
        name, _, argument = service.partition(":")
        kind, *details = name.split(",")
        if kind not in SERVICES or ("v2" in details and "shell_v2" not in self.daemon.features):
            self.send(CLSE, 0, theirs)
            return
        ours = next(self._ids)
        stream = self._streams[ours] = Stream(self, ours, theirs)
        self.send(OKAY, ours, theirs)
        threading.Thread(target=self._run, args=(stream, kind, details, argument), daemon=True).start()

    def _run(self, stream: Stream, kind: str, details: list[str], argument: str) -> None:
        with contextlib.suppress(OSError):
            SERVICES[kind](self.daemon, stream, details, argument)
        self.close(stream)

    def close(self, stream: Stream) -> None:
        """From either side; only the first counts."""
        if self._streams.pop(stream.ours, None) is not None:
            stream.hang_up()
            with contextlib.suppress(OSError):
                self.send(CLSE, stream.ours, stream.theirs)


class Stream:
    """One open service, for the thread that serves it: `read` and `write` wait, and raise `ConnectionError` once it is closed."""

    def __init__(self, connection: Connection, ours: int, theirs: int) -> None:
        self._connection, self.ours, self.theirs = connection, ours, theirs
        self.arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.writable = threading.Semaphore(1)
        self._writing = threading.Lock()
        self._pending = b""
        self._closed = False

    def write(self, data: bytes) -> None:
        with self._writing:
            for start in range(0, len(data), self._connection.longest_bytes):
                self.writable.acquire()
                if self._closed:
                    self.writable.release()
                    raise ConnectionResetError
                self._connection.send(WRTE, self.ours, self.theirs, data[start : start + self._connection.longest_bytes])

    def read(self, count: int) -> bytes:
        parts, missing = [self._pending], count - len(self._pending)
        while missing > 0:
            data = self.arrived.get()
            if not data:
                raise ConnectionResetError
            self._connection.send(OKAY, self.ours, self.theirs)
            parts.append(data)
            missing -= len(data)
        data = b"".join(parts)
        self._pending = data[count:]
        return data[:count]

    def hang_up(self) -> None:
        self._closed = True
        self.arrived.put(b"")
        self.writable.release()


def _signed(key: bytes, token: bytes, signature: bytes) -> bool:
    """Android writes a public key as: 64 (words of the modulus), a constant, modulus, another constant, exponent; little-endian."""
    modulus, exponent = struct.unpack("<8x256s256xI", base64.b64decode(key))
    public = rsa.RSAPublicNumbers(exponent, int.from_bytes(modulus, "little")).public_key()
    try:
        public.verify(signature, token, padding.PKCS1v15(), Prehashed(SHA1()))
    except InvalidSignature:
        return False
    return True
