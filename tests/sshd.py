"""OpenSSH's own server on the loopback interface, with keys of its own, and the faults that a link can have."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
needs_sshd = pytest.mark.skipif(
    not (SSHD and shutil.which("ssh") and shutil.which("ssh-keygen")),
    reason="OpenSSH's server and client are not installed (Debian: openssh-server, openssh-client)",
)


def free_port(host: str = "127.0.0.1") -> int:
    with socket.create_server((host, 0)) as server:
        port: int = server.getsockname()[1]
    return port


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)
    return path


class Sshd:
    """A server in a folder; entering it starts it. `config` is a file for `ssh -F`, with the alias `board`."""

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        environment: Mapping[str, str] | None = None,
        settings: Sequence[str] = (),
        prefix: Sequence[str] = (),
    ) -> None:
        """`environment` is what logins get, `settings` further lines for its configuration, `prefix` a command that starts it."""
        self.folder, self.host, self._prefix = folder, host, prefix
        self.port = free_port("127.0.0.1")
        self.log, self.config, self.known_hosts = folder / "log", folder / "ssh_config", folder / "known_hosts"
        self.home = folder / "home"
        self._environment = {"HOME": str(self.home), "XDG_CACHE_HOME": str(self.home / "cache"), **(environment or {})}
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True)
        self.host_key, self.identity = make_key(self.folder / "host_key"), make_key(self.folder / "identity")
        shutil.copy(self.folder / "identity.pub", self.folder / "authorized_keys")
        self._write_configurations()
        self.trust(self.host_key)
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _write_configurations(self) -> None:
        environment = " ".join(f'{name}="{value}"' for name, value in self._environment.items())
        lines = [
            f"Port {self.port}",
            f"ListenAddress {self.host}",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
            f"SetEnv {environment}",
            "PidFile none",
            "UsePAM no",
            "StrictModes no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin yes",
            "LogLevel VERBOSE",
            "MaxStartups 100",
            *self._settings,
        ]
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n")
        self.point_at(self.port)

    def point_at(self, port: int, *further: str, host: str | None = None, identity: Path | None = None) -> Path:
        """Let the alias `board` lead to this port; `further` are lines for that host. The file for `ssh -F`."""
        lines = [
            "Host board",
            f"HostName {host or self.host}",
            f"Port {port}",
            f"User {pwd.getpwuid(os.getuid()).pw_name}",
            f"IdentityFile {identity or self.identity}",
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile /dev/null",
            "HostKeyAlias board",
            *further,
        ]
        self.config.write_text("\n".join(lines) + "\n")
        return self.config

    def trust(self, key: Path) -> None:
        """This key, and no other, is known to be that of `board`."""
        self.known_hosts.write_text(f"board {key.with_suffix('.pub').read_text()}")

    def start(self) -> None:
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where a privileged server locks up its unprivileged half
        assert SSHD is not None
        self.log.touch()
        already = self.log.stat().st_size
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=log
            )
        for _ in range(3000):
            if f"listening on {self.host}".encode() in self.log.read_bytes()[already:]:
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.01)
        raise RuntimeError(f"sshd does not start: {self.log.read_text()}")

    def stop(self) -> None:
        """The server and all of its connections."""
        if self._process is not None:
            self.resume()
            self.cut()
            self._process.kill()
            self._process.wait()
            self._process = None

    def servers(self) -> list[int]:
        """The process ids of its connections' servers, without the commands that run in them."""
        assert self._process is not None
        return [pid for pid in descendants(self._process.pid) if name_of(pid).startswith("sshd")]

    def commands(self) -> list[int]:
        """The process ids of what runs in its connections."""
        assert self._process is not None
        return [pid for pid in descendants(self._process.pid) if not name_of(pid).startswith("sshd")]

    def cut(self) -> None:
        """End every connection as a reset does; the server goes on."""
        self._signal(signal.SIGKILL)

    def hang(self) -> None:
        """Answer nothing any more, on connections that stay up."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.servers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def accepted(self) -> int:
        """How many logins there were."""
        return self.log.read_text().count("Accepted publickey")


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def descendants(pid: int) -> list[int]:
    """Process ids below this one."""
    try:
        children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return children + [below for child in children for below in descendants(child)]


class Proxy:
    """A TCP relay on the loopback interface: it can delay (each way), throttle and cut off."""

    def __init__(self, port: int, *, host: str = "127.0.0.1", delay_s: float = 0.0, bytes_per_s: float = 0.0) -> None:
        self._target, self._delay_s, self._bytes_per_s = (host, port), delay_s, bytes_per_s
        self.cut_after_bytes: int | None = None
        """Of what the client sends, counted from when this is set; once it is over, this is None again."""
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(self._target)
                self._open += [client, server]
                self._relay(client, server, upwards=True)
                self._relay(server, client, upwards=False)

    def _relay(self, source: socket.socket, sink: socket.socket, *, upwards: bool) -> None:
        chunks: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
        threading.Thread(target=self._receive, args=(source, chunks, upwards), daemon=True).start()
        threading.Thread(target=self._send, args=(sink, chunks), daemon=True).start()

    def _receive(self, source: socket.socket, chunks: SimpleQueue[tuple[float, bytes]], upwards: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                chunks.put((time.monotonic() + self._delay_s, data))
                if upwards and self.cut_after_bytes is not None:
                    self.cut_after_bytes -= len(data)
                    if self.cut_after_bytes <= 0:
                        self.cut_after_bytes = None
                        self.cut()
        chunks.put((0.0, b""))

    def _send(self, sink: socket.socket, chunks: SimpleQueue[tuple[float, bytes]]) -> None:
        with contextlib.suppress(OSError):
            while (chunk := chunks.get())[1]:
                due, data = chunk
                time.sleep(max(0.0, due - time.monotonic()))
                sink.sendall(data)
                if self._bytes_per_s:
                    time.sleep(len(data) / self._bytes_per_s)
            sink.shutdown(socket.SHUT_RDWR)
