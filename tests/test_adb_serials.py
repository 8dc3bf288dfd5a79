"""What adb's server lists: serial numbers with blanks, without any, twice; played by a server that answers as Google's does."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from device_agents.adb.address import ADB
from device_agents.adb.direct import AdbDirectAgent
from device_agents.adb.server import AdbAgent
from device_agents.agent import Options
from device_agents.errors import DeviceError, DeviceUnauthorised, DeviceUnreachable

PHONE = "8A1X0ZQ2W              device usb:1-4 product:oriole model:Pixel_6 device:oriole transport_id:1"
AGAIN = "adb-8A1X0ZQ2W-pQ7rTz (2)._adb-tls-connect._tcp device product:oriole model:Pixel_6 device:oriole transport_id:4"
BOX = "(no serial number)     device usb:1-8 product:box model:TV_Box device:box transport_id:11"
TWINS = (
    "0123456789ABCDEF       device usb:1-2 product:tab model:Tab device:tab transport_id:2",
    "0123456789ABCDEF       device usb:3-1.4 product:tab model:Tab device:tab transport_id:3",
)
REFUSED = (
    "(no serial number)     no permissions (missing udev rules? user is in the plugdev group); "
    "see [http://developer.android.com/tools/device.html] usb:1-8 transport_id:2"
)


@contextmanager
def listing(lines: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server that lists these devices, and what it was asked."""
    asked: list[str] = []

    class Client(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            length = self.rfile.read(4)
            if not length:  # somebody looked whether there is a server
                return
            asked.append(self.rfile.read(int(length, 16)).decode())
            said = "".join(f"{line}\n" for line in lines) if asked[-1] == "host:devices-l" else "shell_v2,cmd"
            self.wfile.write(b"OKAY%04x" % len(said) + said.encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Client) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.delenv("ADB_SERVER_SOCKET", raising=False)
        monkeypatch.setenv("ANDROID_ADB_SERVER_HOST", "127.0.0.1")
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.server_address[1]))
        yield asked
        server.shutdown()


@pytest.mark.parametrize(
    ("line", "address", "description"),
    [
        (PHONE, "adb:8A1X0ZQ2W", "Pixel 6 (oriole)"),
        (AGAIN, "adb:adb-8A1X0ZQ2W-pQ7rTz (2)._adb-tls-connect._tcp", "Pixel 6 (oriole)"),
        (BOX, "adb:(no serial number)", "TV Box (box)"),
        ("my device 7             device usb:1-1 transport_id:5", "adb:my device 7", "an Android device"),
        ("a device device         device usb:1-1 transport_id:5", "adb:a device device", "an Android device"),
        ("192.168.0.7:5555       device product:p model:M device:d transport_id:6", "adb:192.168.0.7:5555", "M (p)"),
        ("emulator-5554          device", "adb:emulator-5554", "an Android device"),
    ],
)
def test_a_device_is_usable_by_its_whole_serial_number(
    line: str, address: str, description: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listing((line,), monkeypatch):
        (seen,) = AdbAgent.attached()
    assert (seen.address, seen.description, seen.obstacle) == (address, description, None)


@pytest.mark.parametrize(
    ("line", "obstacle"),
    [
        (REFUSED, "install the udev rules"),
        (
            "????????????           no permissions; see [http://developer.android.com] usb:1-8 transport_id:2",
            "install the udev rules",
        ),
        ("my phone               unauthorized usb:1-8 transport_id:2", "accept the question on its screen"),
        (AGAIN.replace(" device ", " offline ", 1), "it does not answer"),
        ("(no serial number)     recovery usb:1-8 transport_id:2", "in the state 'recovery'"),
    ],
)
def test_the_state_of_a_device_is_read_behind_any_serial_number(line: str, obstacle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with listing((line,), monkeypatch):
        (seen,) = AdbAgent.attached()
    assert seen.obstacle is not None and obstacle in seen.obstacle


def asked_for(transport: int, asked: list[str]) -> bool:
    return f"host-transport-id:{transport}:features" in asked


@pytest.mark.parametrize(
    ("address", "transport"),
    [
        ("adb:8A1X0ZQ2W", 1),
        ("adb:adb-8A1X0ZQ2W-pQ7rTz (2)._adb-tls-connect._tcp", 4),
        ("adb:(no serial number)", 11),
        ("adb:usb:1-8", 11),
        ("adb:usb:3-1.4", 3),
    ],
)
def test_an_address_reaches_the_device_that_it_names(address: str, transport: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with listing((PHONE, AGAIN, BOX, *TWINS), monkeypatch) as asked:
        agent = ADB(address, Options())
        assert isinstance(agent, AdbAgent)
        agent._connect()
        assert asked_for(transport, asked)


def test_devices_of_the_same_serial_number_are_listed_by_their_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    with listing((*TWINS, BOX, REFUSED.replace("1-8", "1-9")), monkeypatch):
        addresses = [seen.address for seen in AdbAgent.attached()]
    assert addresses == ["adb:usb:1-2", "adb:usb:3-1.4", "adb:usb:1-8", "adb:usb:1-9"]


def test_a_serial_number_that_several_have_is_refused_with_the_addresses_to_choose_from(monkeypatch: pytest.MonkeyPatch) -> None:
    with listing(TWINS, monkeypatch), pytest.raises(DeviceUnreachable, match=r"2 devices .*: adb:usb:1-2, adb:usb:3-1\.4$"):
        AdbAgent("adb:0123456789ABCDEF")._connect()


def test_a_server_that_tells_no_transports_is_asked_by_the_serial_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_SERIAL", "another")
    with listing(("my phone               device",), monkeypatch) as asked:
        AdbAgent("adb:my phone")._connect()
    assert "host-serial:my phone:features" in asked


def test_a_blank_in_the_serial_number_of_a_device_that_waits_for_its_owner_is_no_obstacle_to_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("device_agents.adb.server.SETTLE_S", 0.2)
    with listing(("my phone               unauthorized usb:1-8 transport_id:2",), monkeypatch), pytest.raises(DeviceUnauthorised):
        AdbAgent("adb:my phone")._connect()


def test_part_of_a_serial_number_with_a_blank_says_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with listing((AGAIN,), monkeypatch), pytest.raises(DeviceError, match=r"did you mean 'adb:adb-8A1X0ZQ2W-pQ7rTz \(2\)"):
        AdbAgent("adb:adb-8A1X0ZQ2W-pQ7rTz")._connect()


def test_a_host_and_port_that_the_server_does_not_list_is_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    with listing((AGAIN, BOX), monkeypatch):
        assert isinstance(ADB("adb:192.168.0.7:5555", Options()), AdbDirectAgent)
