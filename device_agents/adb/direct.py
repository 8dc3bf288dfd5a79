"""Android devices over the network without adb: straight to the daemon on the device, once `adb tcpip 5555` has been run for it.

The address is `adb:HOST:PORT`. Android 11's wireless debugging is encrypted and needs adb itself: pair and connect it there, and
use `adb:SERIAL`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

from adb_shell import exceptions

from device_agents.adb.keys import signers
from device_agents.adb.link import AdbLink, LinkPipe, ServiceRefused
from device_agents.adb.services import DEFAULT_FOLDER, SHELL, SYNC, ShellChannel, write_file
from device_agents.agent import Options
from device_agents.errors import DeviceUnauthorised, DeviceUnreachable, LinkLost
from device_agents.remote import Channel, RemoteAgent

ASKED_S = 15.0
"""How long a person has to accept our key on the screen."""
FOREIGN = (
    OSError,
    ValueError,
    exceptions.AdbTimeoutError,
    exceptions.DeviceAuthError,
    exceptions.InvalidChecksumError,
    exceptions.InvalidCommandError,
    exceptions.InvalidResponseError,
)
"""What may come out of a socket or adb_shell while shaking hands."""


class AdbDirectAgent(RemoteAgent):
    """All commands share one connection."""

    default_folder = DEFAULT_FOLDER

    def __init__(self, address: str, options: Options | None = None) -> None:
        super().__init__(address, options)
        self._link: AdbLink | None = None

    def _connect(self) -> None:
        link = AdbLink(*self._where())
        try:
            with self._connecting(link):
                link.connect(signers(), asked_s=ASKED_S)
        except BaseException:
            link.close()
            raise
        self._link = link

    def _where(self) -> tuple[str, int]:
        host, _, port = self.address.partition(":")[2].rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise DeviceUnreachable(f"{self.address!r} names no host and port; write it as adb:192.168.0.7:5555")
        return host.strip("[]"), int(port)

    @contextmanager
    def _connecting(self, link: AdbLink) -> Iterator[None]:
        """Whatever goes wrong while shaking hands, as one of our errors."""
        try:
            yield
        except FOREIGN as exc:
            if link.asked or isinstance(exc, exceptions.DeviceAuthError):
                raise DeviceUnauthorised(
                    f"{self.address} did not accept this machine's key within {ASKED_S:.0f} s; unlock its screen, "
                    "accept the question there with `Always allow`, and try again"
                ) from exc
            if "STLS" in str(exc):
                raise DeviceUnreachable(
                    f"{self.address} only speaks encrypted adb; use `adb pair` and `adb connect`, then its serial in `adb devices`"
                ) from exc
            if isinstance(exc, exceptions.InvalidCommandError | exceptions.InvalidResponseError | ValueError):
                raise DeviceUnreachable(f"what listens at {self.address} is no adb daemon; look at the port") from exc
            why = getattr(exc, "strerror", None) or exc
            raise DeviceUnreachable(
                f"{self.address} cannot be reached: {why}; is it on, and has `adb tcpip 5555` been run?"
            ) from exc

    def _disconnect(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = None

    def _open(self, line: str) -> Channel:
        return ShellChannel(self._service(SHELL + line))

    def _upload(self, data: bytes, path: str, timeout_s: float) -> None:
        with contextlib.closing(self._service(SYNC)) as pipe:
            write_file(pipe, data, path, timeout_s=timeout_s, address=self.address)

    def _service(self, name: str) -> LinkPipe:
        if self._link is None:
            raise LinkLost(f"there is no connection to {self.address}; reconnect it")
        try:
            return self._link.open(name)
        except ServiceRefused as exc:
            raise DeviceUnreachable(
                f"{self.address} offers no `{exc}`: an Android before 7, whose shell tells no exit codes; use a newer device"
            ) from exc
        except OSError as exc:
            raise LinkLost(f"the connection to {self.address} broke off: {exc}") from exc
