"""Boards over ssh, by the user's own OpenSSH, so that their configuration, keys, agent and known hosts apply.

Entering makes one connection, by a master process that runs `cat` on the board: it ends when our end of the pipe is closed, however
our process ends. Every command after that is a channel of this connection, through a control socket in a folder that only we may
enter.
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
from device_agents.errors import DeviceError, DeviceUnauthorised, DeviceUnreachable, LinkLost, StoreFailed, UnknownDevice, make_room
from device_agents.remote import RemoteAgent, Source, shell_line
from device_agents.ssh.channel import SshChannel
from device_agents.support.text import last_line

CONNECT_S = 15
"""Time for the host to answer; ssh's own limit."""
LOGIN_S = 45.0
"""Time for the whole of connecting: a jump host or a slow board may take long after the first answer."""
ALIVE_COUNT = 2
LONGEST_SOCKET_FOLDER = 60
"""Bytes. A socket's path has room for 104, and ssh adds a suffix of 17 while it makes one."""


class SshAgent(RemoteAgent):
    """A host that `ssh` reaches without asking a question: an alias of its configuration or user@host, with :PORT if need be."""

    address_forms = ("ssh:HOST",)
    default_folder = "${XDG_CACHE_HOME:-$HOME/.cache}"
    alive_interval_s = 5
    """The connection is lost when the other end has not answered for this long, ALIVE_COUNT + 1 times in a row."""

    def __init__(self, address: str, options: Options | None = None) -> None:
        super().__init__(address, options)
        self._host, self._port = destination(address)
        self._folder_of_socket: Path | None = None
        self._master: SshChannel | None = None

    def _connect(self) -> None:
        self._folder_of_socket = _private_folder()
        ready = secrets.token_hex(8)
        deadline = time.monotonic() + LOGIN_S
        output, errors = b"", b""
        try:
            self._master = master = self._ssh([*self._master_options(), "-o", "ControlMaster=yes"], f"echo {ready}; exec cat")
            # until it has run its command: what the login shell prints before is skipped
            while ready.encode() not in output:
                try:
                    source, data = master.receive(max(0.0, deadline - time.monotonic()))
                except TimeoutError:
                    raise DeviceUnreachable(
                        f"{self.address} did not accept the login within {LOGIN_S:g} s; see what `ssh {self._host}` waits for"
                    ) from None
                if source is Source.END:
                    raise _refusal(self.address, self._host, master.code(), (output + errors).decode(errors="replace"))
                output, errors = (output + data, errors) if source is Source.OUT else (output, errors + data)
        except BaseException:
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        if self._master is not None:
            self._master.close()
            self._master = None
        if self._folder_of_socket is not None:
            shutil.rmtree(self._folder_of_socket, ignore_errors=True)
            self._folder_of_socket = None

    def _open(self, line: str) -> SshChannel:
        if self._master is None:
            raise LinkLost(f"there is no connection to {self.address} any more; reconnect it")
        if not self._master.alive():
            raise self._lost(self._master.errors())
        # without the master ssh would make a connection of its own; these options make it fail instead
        return self._ssh(["-o", "ControlMaster=no", "-o", "ProxyCommand=false", "-o", "LogLevel=ERROR"], line, self._master)

    def _upload(self, data: bytes, path: str, timeout_s: float) -> None:
        # the device itself removes what a lost connection leaves half-written
        file = shlex.quote(path)
        script = f'cat >{file}; code=$?; [ "$(wc -c <{file})" -eq {len(data)} ] || rm -f {file}; exit $code'
        channel = self._open(shell_line(script))
        try:
            code, errors = channel.feed(data, timeout_s)
        except TimeoutError:
            raise LinkLost(f"{len(data) / 1e6:.1f} MB could not be sent to {self.address} within {timeout_s:.0f} s") from None
        finally:
            channel.close()
        if code == 255:
            raise self._lost(errors)
        if code != 0:
            raise StoreFailed(f"{path} could not be written on {self.address}: {last_line(errors)}; {make_room(self.address)}")

    def _lost(self, errors: str) -> LinkLost:
        return LinkLost(f"the connection to {self.address} was lost: {last_line(errors)}")

    # --------------------------------------------------------------------------------------------------------- the ssh program

    def _ssh(self, options: Sequence[str], line: str, master: SshChannel | None = None) -> SshChannel:
        """Start ssh in a session of its own: Ctrl-C is for us, and we still need the connection to kill what runs on the board."""
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
        """Options that override any configuration: no terminal, no questions, no forwarding, no command but ours."""
        config = ["-F", self.options.ssh_config] if self.options.ssh_config else []
        port = ["-p", str(self._port)] if self._port else []
        socket = str(self._folder_of_socket).replace("%", "%%") + "/s"  # ssh expands %
        settings = ["BatchMode=yes", "RemoteCommand=none", "PermitLocalCommand=no", "ClearAllForwardings=yes", "ControlPersist=no"]
        return [*config, *port, "-S", socket, "-T", "-a", "-x", *(word for each in settings for word in ("-o", each))]

    def _master_options(self) -> list[str]:
        settings = [
            f"ConnectTimeout={CONNECT_S}",
            f"ServerAliveInterval={self.alive_interval_s}",
            f"ServerAliveCountMax={ALIVE_COUNT}",
            "LogLevel=INFO",  # a quieter level hides the reason of a failure
        ]
        return [word for each in settings for word in ("-o", each)]


def destination(address: str) -> tuple[str, int | None]:
    """The host as `ssh` expects it, and the port if one is named: `ssh:user@host:22`, `ssh:[::1]:22`, `ssh:::1`, `ssh:alias`.

    `UnknownDevice` for a host that ssh would take for an option, or that a shell called by a configuration would interpret.
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


_REFUSALS: tuple[tuple[str, type[DeviceError], str], ...] = (
    (
        r".*IDENTIFICATION HAS CHANGED.*",
        DeviceUnauthorised,
        "its host key is not the one in your known_hosts; if you know why it changed, "
        "remove the old one with `ssh-keygen -R` as `ssh {host}` says, and log in once by hand",
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
    (r".*(Could not resolve|Name or service not known).*", DeviceUnreachable, "check the name, or add it to ~/.ssh/config"),
    (r".*Connection refused.*", DeviceUnreachable, "is an ssh server running there, and on that port?"),
    (r".*([Tt]imed out|Timeout|No route to host|unreachable).*", DeviceUnreachable, "is it switched on, and on this network?"),
    (
        r".*(Bad configuration option|Bad owner or permissions|user config file).*",
        DeviceUnreachable,
        "fix the ssh configuration",
    ),
)
"""A line of what ssh prints, our error for it, and the next step. The first that matches is used."""


def _refusal(address: str, host: str, code: int, output: str) -> DeviceError:
    """The error for a connection that was not made, from ssh's exit code and all it printed."""
    if 0 <= code < 255:
        why = last_line(output)
        return DeviceUnauthorised(f"{address} accepts the login but runs no commands: {why}; give that account a login shell")
    output = output.replace("\r", "")
    for pattern, kind, step in _REFUSALS:
        if line := re.search(pattern, output):
            return kind(f"{address} cannot be used: {line[0].strip(' @.')}; {step.format(host=host)}")
    return DeviceUnreachable(f"{address} cannot be used: {last_line(output)}; see what `ssh {host}` prints")
