"""What the simulated phone's daemon offers: its shell, in both versions, and the transfer of files.

shell,v2 wraps everything in packets of an id (0 input, 1 output, 2 errors, 3 exit code, 4 end of the input), a length in four
bytes and the data. `sync:` has requests and answers of four letters and a number:

    SEND n "path,mode"   DATA n …  DATA n …  DONE mtime     OKAY 0, or FAIL n reason
    RECV n path          DATA n …  DATA n …  DONE 0, or FAIL n reason
    LIST n path          DENT mode size mtime n name …  DONE and four zeros
    STAT n path          STAT mode size mtime, all zero if there is none
    STA2, LST2 n path    the same word, error, device, inode, mode, links, owner, group, size and three times
    QUIT 0

DATA holds 64 KiB at the most. A refusal is sent at once, and the rest of the file is still read.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adbd import Adbd, Stream

STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
PACKET = struct.Struct("<BI")
REQUEST = struct.Struct("<4sI")
STAT_2 = struct.Struct("<4sIQQIIIIQqqq")
CHUNK_BYTES = 64 << 10


def shell(daemon: Adbd, stream: Stream, details: list[str], line: str) -> None:
    """Version 2 if the service's name says so; else output and errors as one, and no exit code. There is no terminal in either."""
    packets = "v2" in details
    process = subprocess.Popen(
        ["sh", "-c", line],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if packets else subprocess.STDOUT,
        env=daemon.environment,
        start_new_session=True,
        bufsize=0,
    )
    daemon.processes.add(process.pid)
    outputs = [(process.stdout, STDOUT), (process.stderr, STDERR)]
    pumps = [threading.Thread(target=_pump, args=(pipe, stream, kind, packets), daemon=True) for pipe, kind in outputs if pipe]
    for thread in [*pumps, threading.Thread(target=_feed, args=(stream, process, packets), daemon=True)]:
        thread.start()
    for thread in pumps:
        thread.join()
    code = process.wait()
    daemon.processes.discard(process.pid)
    if packets:
        stream.write(PACKET.pack(EXIT, 1) + bytes([code if code >= 0 else 128 - code]))


def _pump(pipe: IO[bytes], stream: Stream, kind: int, packets: bool) -> None:
    """The command's output to the host, until it ends or nobody listens any more."""
    with pipe, contextlib.suppress(OSError):
        while data := pipe.read(CHUNK_BYTES):
            stream.write(PACKET.pack(kind, len(data)) + data if packets else data)


def _feed(stream: Stream, process: subprocess.Popen[bytes], packets: bool) -> None:
    """The host's input to the command. A stream that is closed closes it, and sends SIGHUP: to the direct child alone."""
    assert process.stdin is not None
    try:
        while True:
            kind, length = PACKET.unpack(stream.read(PACKET.size)) if packets else (STDIN, 1)
            data = stream.read(length)
            with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended, or closed its input
                if kind == STDIN:
                    process.stdin.write(data)
                elif kind == CLOSE_STDIN:
                    process.stdin.close()
    except ConnectionError:
        process.stdin.close()
        if process.poll() is None:
            process.send_signal(signal.SIGHUP)


def sync(daemon: Adbd, stream: Stream, details: list[str], argument: str) -> None:
    while True:
        word, length = REQUEST.unpack(stream.read(REQUEST.size))
        if word not in SYNC:
            return  # QUIT, or what we do not know
        SYNC[word](daemon, stream, word, stream.read(length).decode())


def _receive_file(daemon: Adbd, stream: Stream, word: bytes, argument: str) -> None:
    name, _, mode = argument.rpartition(",")
    path, refusal = Path(name), ""
    try:
        if daemon.faults.refused_pushes:
            daemon.faults.refused_pushes -= 1
            raise OSError("No space left on device")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.touch()
    except OSError as exc:
        refusal = exc.strerror or str(exc)
        stream.write(REQUEST.pack(b"FAIL", len(refusal)) + refusal.encode())
    with path.open("wb") if not refusal else open(os.devnull, "wb") as file:  # noqa: PTH123
        while (header := REQUEST.unpack(stream.read(REQUEST.size)))[0] == b"DATA" and header[1] <= CHUNK_BYTES:
            file.write(stream.read(header[1]))
    if refusal or header[0] != b"DONE":
        return
    user = int(mode) & 0o700
    path.chmod(user | user >> 3 | user >> 6)
    os.utime(path, (header[1], header[1]))
    if daemon.faults.short_pushes:
        daemon.faults.short_pushes -= 1
        os.truncate(path, path.stat().st_size // 2)
    stream.write(REQUEST.pack(b"OKAY", 0))


def _send_file(daemon: Adbd, stream: Stream, word: bytes, name: str) -> None:
    try:
        with Path(name).open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                stream.write(REQUEST.pack(b"DATA", len(data)) + data)
        stream.write(REQUEST.pack(b"DONE", 0))
    except FileNotFoundError as exc:
        stream.write(REQUEST.pack(b"FAIL", len(exc.strerror)) + exc.strerror.encode())


def _list(daemon: Adbd, stream: Stream, word: bytes, name: str) -> None:
    for path in sorted(Path(name).iterdir()) if Path(name).is_dir() else []:
        encoded = path.name.encode()
        stream.write(struct.pack("<4s4I", b"DENT", *_stat_1(path), len(encoded)) + encoded)
    stream.write(struct.pack("<4s4I", b"DONE", 0, 0, 0, 0))


def _stat(daemon: Adbd, stream: Stream, word: bytes, name: str) -> None:
    stream.write(struct.pack("<4s3I", b"STAT", *_stat_1(Path(name))))


def _stat_1(path: Path) -> tuple[int, int, int]:
    if not path.exists():
        return 0, 0, 0
    found = path.lstat()
    return found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime)


def _stat_2(daemon: Adbd, stream: Stream, word: bytes, name: str) -> None:
    try:
        s = os.stat(name) if word == b"STA2" else os.lstat(name)  # noqa: PTH116
    except OSError as exc:
        stream.write(STAT_2.pack(word, exc.errno or 0, *[0] * 10))
        return
    times = int(s.st_atime), int(s.st_mtime), int(s.st_ctime)
    stream.write(STAT_2.pack(word, 0, s.st_dev, s.st_ino, s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_size, *times))


SERVICES: dict[str, Callable[[Adbd, Stream, list[str], str], Any]] = {"shell": shell, "exec": shell, "sync": sync}
SYNC = {b"SEND": _receive_file, b"RECV": _send_file, b"LIST": _list, b"STAT": _stat, b"STA2": _stat_2, b"LST2": _stat_2}
