"""Boards over ssh. The user's own OpenSSH does the talking, so that their configuration, keys, agent and known hosts hold.

One connection is made on entering, by a master that runs `cat`: it ends with our end of the pipe, however we end. Every command
after that is a channel in it, reached through a control socket in a folder that only we may enter.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from device_agents.agent import Options
from device_agents.errors import DeviceError, DeviceUnauthorised, DeviceUnreachable, LinkLost, StoreFailed, UnknownDevice
from device_agents.remote import RemoteAgent, Source
from device_agents.ssh.channel import SshChannel

CONNECT_S = 15
"""For the host to answer; ssh's own limit."""
LOGIN_S = 45.0
"""For the whole of connecting, where a jump host or a slow board takes its time after the first answer."""
ALIVE_COUNT = 2
LONGEST_SOCKET_FOLDER = 60
"""A socket's path has room for 104 bytes, and ssh adds a suffix of 17 to it while it makes one."""


class SshAgent(RemoteAgent):
    """A host that `ssh` reaches without asking anything: an alias of its configuration or user@host, then :PORT if need be."""

    address_forms = ("ssh:HOST",)
    default_folder = "${XDG_CACHE_HOME:-$HOME/.cache}"
    alive_interval_s = 5
    """A link is dead when the other end has not answered for so long ALIVE_COUNT + 1 times."""

    def __init__(self, address: str, options: Options | None = None) -> None:
        super().__init__(address, options)
        self._host, self._port = destination(address)
        self._folder_of_socket: Path | None = None
        self._master: SshChannel | None = None

    def _connect(self) -> None:
        self._folder_of_socket = _private_folder()
        ready = secrets.token_hex(8)
        try:
            self._master = self._ssh([*self._master_options(), "-o", "ControlMaster=yes"], f"echo {ready}; exec cat")
            self._await(self._master, ready.encode())
        except BaseException:
            self._disconnect()
            raise

    def _await(self, master: SshChannel, ready: bytes) -> None:
        """Until the master has run its command: whatever the login shell says before is skipped."""
        deadline = time.monotonic() + LOGIN_S
        said, errors = b"", b""
        while ready not in said:
            try:
                source, data = master.receive(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise DeviceUnreachable(
                    f"{self.address} did not let us in within {LOGIN_S:g} s; see what `ssh {self._host}` waits for"
                ) from None
            if source is Source.END:
                raise _refusal(self.address, self._host, master.code(), (said + errors).decode(errors="replace"))
            said, errors = (said + data, errors) if source is Source.OUT else (said, errors + data)

    def _disconnect(self) -> None:
        if self._master is not None:
            self._master.close()
            self._master = None
        if self._folder_of_socket is not None:
            shutil.rmtree(self._folder_of_socket, ignore_errors=True)
            self._folder_of_socket = None

    def _open(self, line: str) -> SshChannel:
        if self._master is None:
            raise LinkLost(f"there is no connection to {self.address} any more; it has to be made anew")
        if not self._master.alive():
            raise self._lost(self._master.errors())
        # Without the master ssh would connect by itself; it shall fail instead.
        return self._ssh(["-o", "ControlMaster=no", "-o", "ProxyCommand=false", "-o", "LogLevel=ERROR"], line, self._master)

    def _upload(self, data: bytes, path: str, timeout_s: float) -> None:
        """`LinkLost` too if it takes longer than `timeout_s`. What a broken link leaves half-written, the device removes itself."""
        file = shlex.quote(path)
        script = f'cat >{file}; code=$?; [ "$(wc -c <{file})" -eq {len(data)} ] || rm -f {file}; exit $code'
        channel = self._open(f"exec sh -c {shlex.quote(script)}")
        try:
            code, said = channel.feed(data, timeout_s)
        except TimeoutError:
            raise LinkLost(f"{len(data) / 1e6:.1f} MB could not be sent to {self.address} within {timeout_s:.0f} s") from None
        finally:
            channel.close()
        if code == 255:
            raise self._lost(said)
        if code != 0:
            raise StoreFailed(
                f"{path} could not be written on {self.address}: {_last_line(said)}; `profile clean {self.address}` makes room"
            )

    def _lost(self, said: str) -> LinkLost:
        return LinkLost(f"the connection to {self.address} broke off: {_last_line(said)}")

    # --------------------------------------------------------------------------------------------------------- the ssh program

    def _ssh(self, options: Sequence[str], line: str, master: SshChannel | None = None) -> SshChannel:
        """Start it in a session of its own: Ctrl-C is for us, and we still need the link to kill what runs over there."""
        argv = ["ssh", *self._common_options(), *options, "--", self._host, line]
        try:
            process = subprocess.Popen(
                argv,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | {"SSH_ASKPASS_REQUIRE": "never"},
                start_new_session=True,
            )
        except FileNotFoundError as exc:
            raise DeviceUnreachable(
                "there is no `ssh` on this host; install OpenSSH's client (Debian: openssh-client) or put it on PATH"
            ) from exc
        return SshChannel(process, master)

    def _common_options(self) -> list[str]:
        """What no configuration may change: no terminal, no questions, no forwarding, no other command than ours."""
        config = ["-F", self.options.ssh_config] if self.options.ssh_config else []
        port = ["-p", str(self._port)] if self._port else []
        socket = str(self._folder_of_socket).replace("%", "%%") + "/s"  # % would be expanded
        settings = ["BatchMode=yes", "RemoteCommand=none", "PermitLocalCommand=no", "ClearAllForwardings=yes", "ControlPersist=no"]
        return [*config, *port, "-S", socket, "-T", "-a", "-x", *(word for each in settings for word in ("-o", each))]

    def _master_options(self) -> list[str]:
        settings = [
            f"ConnectTimeout={CONNECT_S}",
            f"ServerAliveInterval={self.alive_interval_s}",
            f"ServerAliveCountMax={ALIVE_COUNT}",
            "LogLevel=INFO",  # a quieter one would keep the reason of a failure to itself
        ]
        return [word for each in settings for word in ("-o", each)]


def destination(address: str) -> tuple[str, int | None]:
    """The host as `ssh` takes it, and the port if one is named: `ssh:user@host:22`, `ssh:[::1]:22`, `ssh:::1`, `ssh:alias`.

    `UnknownDevice` for what could be taken for an option, or for more than a name by a shell that a configuration calls.
    """
    user, at, place = address.removeprefix("ssh:").rpartition("@")
    form = _PLACE.fullmatch(place)
    port = int(form["port"] or 22) if form else 0
    if (
        form is None
        or not 0 < port < 65536
        or place.startswith(("-", "[-"))
        or user.startswith("-")
        or _UNSAFE.search(user + place)
    ):
        raise UnknownDevice(f"{address!r} names no host; write ssh:HOST, ssh:user@host or ssh:user@host:PORT")
    return f"{user}{at}{form['six'] or form['bare'] or form['name']}", port if form["port"] else None


_PLACE = re.compile(
    r"(?:\[(?P<six>[^\[\]]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?|(?P<bare>[^:\[\]]*:[^:\[\]]*:[^\[\]]*)"
)
_UNSAFE = re.compile(r"[\s\x00-\x1f\x7f'\"`$\\;&<>|(){}]")


def _private_folder() -> Path:
    base = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="netadapt-ssh-", dir=base if len(base) <= LONGEST_SOCKET_FOLDER else "/tmp"))


def _last_line(said: str) -> str:
    return (said.strip().splitlines() or ["it said nothing"])[-1].strip()


_REFUSALS: tuple[tuple[str, type[DeviceError], str], ...] = (
    (
        r".*IDENTIFICATION HAS CHANGED.*",
        DeviceUnauthorised,
        "its host key is not the one in your known_hosts; if you know why it changed, "
        "remove the old one with `ssh-keygen -R` as `ssh {host}` tells, and log in once by hand",
    ),
    (
        r".*(Host key verification failed|No \S+ host key is known).*",
        DeviceUnauthorised,
        "its host key is not known yet; log in once by hand with `ssh {host}` and compare the key it shows",
    ),
    (
        r".*(Permission denied \(|Too many authentication failures|Authentication failed).*",
        DeviceUnauthorised,
        "put your key there with `ssh-copy-id {host}`, or unlock it with `ssh-add`, until `ssh -o BatchMode=yes {host} true` works",
    ),
    (r".*(Could not resolve|Name or service not known).*", DeviceUnreachable, "look at the name, or add it to ~/.ssh/config"),
    (r".*Connection refused.*", DeviceUnreachable, "is an ssh server running there, and on that port?"),
    (r".*([Tt]imed out|Timeout|No route to host|unreachable).*", DeviceUnreachable, "is it switched on, and on this network?"),
    (r".*(Bad configuration option|Bad owner or permissions|user config file).*", DeviceUnreachable, "mend the ssh configuration"),
)
"""What ssh says (a line of it), what that is to us, and the next step. The first that matches counts."""


def _refusal(address: str, host: str, code: int, said: str) -> DeviceError:
    """The error for a connection that did not come about."""
    if 0 <= code < 255:
        return DeviceUnauthorised(f"{address} lets us in but runs no commands: {_last_line(said)}; give that account a login shell")
    said = said.replace("\r", "")
    for pattern, kind, step in _REFUSALS:
        if line := re.search(pattern, said):
            return kind(f"{address} cannot be used: {line[0].strip(' @.')}; {step.format(host=host)}")
    return DeviceUnreachable(f"{address} cannot be used: {_last_line(said)}; see what `ssh {host}` says")
