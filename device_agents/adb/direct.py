"""Android devices over the network without adb: straight to the daemon on the device, once `adb tcpip 5555` has been run for it.

The address is `adb:HOST:PORT`. Android 11's wireless debugging is encrypted and needs adb: pair and connect it with adb, and use
`adb:SERIAL`.
"""

from __future__ import annotations

from adb_shell import exceptions

from device_agents.adb.keys import signers
from device_agents.adb.link import AdbLink, LinkPipe, ServiceRefused
from device_agents.adb.services import AndroidAgent
from device_agents.agent import Options
from device_agents.errors import DeviceError, DeviceUnauthorised, DeviceUnreachable, LinkLost

ASKED_S = 15.0
"""Time for a person to accept our key on the device's screen."""
FOREIGN = (
    OSError,
    ValueError,
    exceptions.AdbTimeoutError,
    exceptions.DeviceAuthError,
    exceptions.InvalidChecksumError,
    exceptions.InvalidCommandError,
    exceptions.InvalidResponseError,
)
"""What a socket or adb_shell may raise while connecting."""


class AdbDirectAgent(AndroidAgent):
    """One connection for all commands."""

    def __init__(self, address: str, options: Options | None = None) -> None:
        super().__init__(address, options)
        self._link: AdbLink | None = None

    def _connect(self) -> None:
        host, _, port = self.address.partition(":")[2].rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise DeviceUnreachable(f"{self.address!r} names no host and port; write it as adb:192.168.0.7:5555")
        link = AdbLink(host.strip("[]"), int(port))
        try:
            link.connect(signers(), asked_s=ASKED_S)
        except FOREIGN as exc:
            link.close()
            raise self._refusal(exc, asked=link.asked) from exc
        except BaseException:
            link.close()
            raise
        self._link = link

    def _refusal(self, exc: Exception, *, asked: bool) -> DeviceError:
        """The error for a connection that was not made, from what was raised meanwhile."""
        if asked or isinstance(exc, exceptions.DeviceAuthError):
            return DeviceUnauthorised(
                f"{self.address} did not accept this machine's key within {ASKED_S:.0f} s; unlock its screen, "
                "accept the question there with `Always allow`, and try again"
            )
        if "STLS" in str(exc):
            return DeviceUnreachable(
                f"{self.address} accepts only encrypted adb; use `adb pair` and `adb connect`, then its serial in `adb devices`"
            )
        if isinstance(exc, exceptions.InvalidCommandError | exceptions.InvalidResponseError | ValueError):
            return DeviceUnreachable(f"what listens at {self.address} is not an adb daemon; check the port")
        why = getattr(exc, "strerror", None) or exc
        return DeviceUnreachable(f"{self.address} cannot be reached: {why}; is it on, and has `adb tcpip 5555` been run?")

    def _disconnect(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = None

    def _service(self, name: str) -> LinkPipe:
        if self._link is None:
            raise LinkLost(f"there is no connection to {self.address}; reconnect it")
        try:
            return self._link.open(name)
        except ServiceRefused as exc:
            raise DeviceUnreachable(
                f"{self.address} has no service `{exc}`: it runs an Android older than 7, which is not supported"
            ) from exc
        except OSError as exc:
            raise LinkLost(f"the connection to {self.address} was lost: {exc}") from exc
