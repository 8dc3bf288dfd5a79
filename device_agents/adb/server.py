"""Android devices through adb's server, which handles USB, Wi-Fi pairing and keys. It is started if it does not run.

The address is `adb:SERIAL`, as `adb devices` lists it, or `adb:usb:PORT` for one of several devices of the same serial number.
The server is found by adb's own variables: ANDROID_ADB_SERVER_HOST and ANDROID_ADB_SERVER_PORT, or ADB_SERVER_SOCKET
(`tcp:HOST:PORT`).
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from adbutils import AdbClient, AdbDevice, AdbDeviceInfo, AdbError, adb_path

from device_agents.adb.services import ANSWER_S, AndroidAgent
from device_agents.agent import Attached, Options
from device_agents.errors import DeviceError, DeviceUnauthorised, DeviceUnreachable, LinkLost
from device_agents.support.text import nearest

SETTLE_S = 5.0
"""Time for a device that was just plugged in or connected, which is offline or being authorised for a second or two."""
PASSING: tuple[str, ...] = ("offline", "connecting", "authorizing", "host")
INSTALL = "install it (Debian: `apt install adb`; else Google's platform-tools) and put it on PATH"

OBSTACLES = {
    "unauthorized": "accept the question on its screen; if there is none, run `adb kill-server` and replug it",
    "offline": "it does not answer: replug it, or run `adb reconnect offline`",
    "no": "this user may not open it: install the udev rules (Debian: `apt install android-sdk-platform-tools-common`), replug it",
    "connecting": "it is still connecting: try again in a few seconds",
    "authorizing": "it is still being authorised: try again in a few seconds",
}
"""What to do, by the state that the server reports; "no" is the first word of "no permissions"."""
LISTED = re.compile(r"(?P<serial>\S.*?)\s+(?P<state>no permissions\b.*?|[a-z]+)(?P<tags>(?:\s+[a-z_]+:\S*)*)\s*")
"""A line of `adb devices -l`. A serial number may contain blanks, and so does `(no serial number)`."""
NETWORK = re.compile(r"(?!usb:).+:[0-9]{1,5}")
"""The serial of a device that the server is connected to over the network."""


def knows(address: str) -> bool:
    """Whether a server that runs already has a device of this address. No server is started to find out."""
    host, port = _server()
    return _listens(host, port) and _find(AdbClient(host, port, socket_timeout=ANSWER_S), address.partition(":")[2]) is not None


class AdbAgent(AndroidAgent):
    """One connection to the server for each command; the server has one to the device for all of them."""

    def __init__(self, address: str, options: Options | None = None) -> None:
        super().__init__(address, options)
        self._serial = address.partition(":")[2]
        self._device: AdbDevice | None = None

    @classmethod
    def attached(cls) -> Sequence[Attached]:
        """The devices that the server lists; none if there is no adb."""
        try:
            infos = _listed(_client())
        except DeviceUnreachable:
            return []
        return [Attached(f"adb:{_name(info, infos)}", _described(info), _obstacle(info.state)) for info in infos]

    def _connect(self) -> None:
        client = _client()
        info = self._settled(client)
        with _translated(DeviceUnreachable, self.address):
            # without either, adbutils would take ANDROID_SERIAL or the only device there is
            self._device = AdbDevice(client, serial=info.serial, transport_id=info.transport_id)
            features = self._device.get_features().split(",")
        if "shell_v2" not in features:
            raise DeviceUnreachable(
                f"{self.address} runs an Android older than 7, which is not supported: its shell returns no exit codes"
            )

    def _settled(self, client: AdbClient) -> AdbDeviceInfo:
        """The device once it is ready. A network connection that the server keeps although it is dead is made again first."""
        found = _find(client, self._serial)
        passing = PASSING
        if NETWORK.fullmatch(self._serial) and (found is None or found.state != "device"):
            passing = (*PASSING, "unauthorized")  # until the device has checked our key
            with _translated(DeviceUnreachable, self.address):
                client.disconnect(self._serial)
                client.connect(self._serial, timeout=2 * ANSWER_S)
        deadline = time.monotonic() + SETTLE_S
        while True:
            found = _find(client, self._serial)
            if found is None:
                raise DeviceUnreachable(self._missing(client))
            if found.state == "device":
                return found
            if found.state not in passing or time.monotonic() > deadline:
                kind = DeviceUnauthorised if found.state == "unauthorized" else DeviceUnreachable
                raise kind(f"{self.address} cannot be used yet: {_obstacle(found.state)}")
            time.sleep(0.1)

    def _missing(self, client: AdbClient) -> str:
        infos = _listed(client)
        serials = [_name(info, infos) for info in infos]
        if not serials:
            return f"no phone is attached, {self.address} neither: plug it in and allow USB debugging in its developer options"
        parts = [serial for serial in serials if self._serial and self._serial.lower() in serial.lower()]
        near = parts[0] if parts else nearest(self._serial, serials)
        hint = f"did you mean 'adb:{near}'?" if near else f"attached are: {', '.join(f'adb:{serial}' for serial in serials)}"
        return f"{self.address} is not attached; {hint}"

    def _disconnect(self) -> None:
        self._device = None

    def _service(self, name: str) -> SocketPipe:
        if self._device is None:
            raise LinkLost(f"there is no connection to {self.address}; reconnect it")
        with _translated(LinkLost, self.address):
            connection = self._device.open_transport(timeout=ANSWER_S)
            connection.send_command(name)
            connection.check_okay()
            return SocketPipe(connection.conn)


class SocketPipe:
    """A service, through a socket of the server."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        with contextlib.suppress(OSError):  # the socket is not TCP
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # messages are short and waited for

    def send(self, data: bytes, timeout_s: float) -> None:
        self._socket.settimeout(max(0.001, timeout_s))
        self._socket.sendall(data)

    def receive(self, timeout_s: float) -> bytes:
        self._socket.settimeout(max(0.001, timeout_s))  # 0 would make it non-blocking, which raises another exception
        try:
            return self._socket.recv(1 << 18)
        except TimeoutError:
            raise
        except OSError:
            return b""

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the other side was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@contextmanager
def _translated(kind: type[DeviceError], address: str) -> Iterator[None]:
    """Turn whatever adbutils or a socket raises into one of our errors."""
    try:
        yield
    except (AdbError, OSError, EOFError, ValueError) as exc:
        raise kind(f"adb's server cannot reach {address}: {str(exc).strip() or type(exc).__name__}; reconnect it") from exc


def _server() -> tuple[str, int]:
    """Host and port of the server. `DeviceUnreachable` if the variables name a socket of another kind or no valid port."""
    named = os.environ.get("ADB_SERVER_SOCKET", "")
    host = os.environ.get("ANDROID_ADB_SERVER_HOST", "127.0.0.1")
    port = os.environ.get("ANDROID_ADB_SERVER_PORT", "5037")
    if named:
        kind, _, rest = named.partition(":")
        where, _, port = rest.rpartition(":")
        host = where or "127.0.0.1"
        if kind != "tcp":
            raise DeviceUnreachable(f"ADB_SERVER_SOCKET is {named!r}, and only `tcp:HOST:PORT` is supported here")
    if not port.isdigit():
        raise DeviceUnreachable(f"the port of adb's server is {port!r}; set ANDROID_ADB_SERVER_PORT to a number")
    return host, int(port)


def _client() -> AdbClient:
    """A client of the server, which is started if it does not run. `DeviceUnreachable` if that fails."""
    host, port = _server()
    if not _listens(host, port):
        _start_server()
        if not _listens(host, port):
            raise DeviceUnreachable(f"adb's server does not listen on {host}:{port}; start it there with `adb start-server`")
    return AdbClient(host, port, socket_timeout=ANSWER_S)


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _start_server() -> None:
    """Start the server without its output; adbutils would let it print on our standard output."""
    try:
        subprocess.run([adb_path(), "start-server"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20, check=False)
    except (AdbError, OSError) as exc:
        raise DeviceUnreachable(f"there is no adb on this machine; {INSTALL}") from exc
    except subprocess.TimeoutExpired as exc:
        raise DeviceUnreachable("`adb start-server` does not end; run it by hand to see why") from exc


def _listed(client: AdbClient) -> list[AdbDeviceInfo]:
    """The devices of the server; adbutils' own list cuts a serial number at its first blank."""
    with _translated(DeviceUnreachable, "any device"), client.make_connection() as connection:
        connection.send_command("host:devices-l")
        connection.check_okay()
        lines = connection.read_string_block().splitlines()
    found = []
    for line in filter(None, map(LISTED.fullmatch, lines)):
        tags = dict(tag.split(":", 1) for tag in line["tags"].split())
        found.append(AdbDeviceInfo(line["serial"], line["state"].split()[0], tags))
    return found


def _name(info: AdbDeviceInfo, infos: Sequence[AdbDeviceInfo]) -> str:
    """What an address names the device by: its serial number or, where several have that, the USB port, as for `adb -s`."""
    alone = sum(other.serial == info.serial for other in infos) == 1
    return info.serial if alone or "usb" not in info.tags else f"usb:{info.tags['usb']}"


def _find(client: AdbClient, name: str) -> AdbDeviceInfo | None:
    """The device of a serial number or USB port; None if there is none. `DeviceUnreachable` if there are several."""
    infos = _listed(client)
    found = [info for info in infos if name in (info.serial, f"usb:{info.tags.get('usb')}")]
    if len(found) > 1:
        names = ", ".join(f"adb:{_name(info, infos)}" for info in found)
        raise DeviceUnreachable(f"{len(found)} devices have the serial number {name!r}; name one of them by its port: {names}")
    return next(iter(found), None)


def _described(info: AdbDeviceInfo) -> str:
    model, product = info.tags.get("model", "").replace("_", " "), info.tags.get("product", "")
    return f"{model} ({product})" if model and product else model or product or "an Android device"


def _obstacle(state: str) -> str | None:
    if state == "device":
        return None
    return OBSTACLES.get(state, f"it is in the state {state!r}: restart it into Android")
