"""The file on the device by whose lock runners of two hosts exclude each other."""

from __future__ import annotations

import fcntl
import os
import time

from device_agents.on_device.runner.host import say, told


def take_lease(path: str) -> int:
    """The descriptor of the lease file, locked until it is closed, so that runners of two hosts never measure at once."""
    writable = True
    try:
        try:
            lease = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError:  # another user made the file; it can be locked nevertheless
            lease, writable = os.open(path, os.O_RDONLY), False
        fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        holder = os.read(lease, 500).decode(errors="replace").strip()
        say("busy", holder=holder)
        raise SystemExit(f"another runner holds the lease {path}: {holder!r}") from exc
    except OSError as exc:
        raise SystemExit(f"the lease cannot be had: {told(exc)}") from exc
    if writable:
        os.ftruncate(lease, 0)
        os.write(lease, f"process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}\n".encode())
    return lease
