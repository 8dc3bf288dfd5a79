"""AdbAgent, with Google's own server between it and a simulated phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from adb_conformance import AdbConformance
from adb_program import adb, adb_environment, connect, free_port, needs_adb
from adbd import Adbd

from device_agents.adb.address import ADB
from device_agents.adb.direct import AdbDirectAgent
from device_agents.adb.server import AdbAgent
from device_agents.agent import Agent, Options
from device_agents.errors import DeviceUnauthorised, DeviceUnreachable

pytestmark = needs_adb


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with adb_environment(tmp_path_factory.mktemp("home")) as variables:
        yield variables


@pytest.fixture(autouse=True)
def own_server(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Started by the first agent that needs it."""
    for name in ("ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_HOST"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def address(phone: Adbd) -> str:
    return f"adb:{phone.host}:{phone.port}"


@pytest.fixture
def phone(variables: dict[str, str]) -> Iterator[Adbd]:
    with Adbd() as phone:
        yield phone
    adb(variables, "disconnect")  # the server would go on looking for it


@pytest.fixture
def connected(phone: Adbd, variables: dict[str, str]) -> Adbd:
    adb(variables, "start-server")
    connect(variables, f"{phone.host}:{phone.port}")
    return phone


class TestAdb(AdbConformance):
    def open(self, phone: Adbd, folder: Path) -> Agent:
        return AdbAgent(address(phone), Options(folder=str(folder)))


def test_attached_phones_are_listed_by_their_model(connected: Adbd) -> None:
    (seen,) = [one for one in AdbAgent.attached() if one.address == address(connected)]
    assert (seen.description, seen.obstacle) == ("Simulated Phone (simulated)", None)


def test_a_phone_that_waits_for_its_owner_says_what_to_do(phone: Adbd, variables: dict[str, str]) -> None:
    phone.faults.unauthorised = True
    adb(variables, "connect", f"{phone.host}:{phone.port}")
    (seen,) = [one for one in AdbAgent.attached() if one.address == address(phone)]
    assert seen.obstacle is not None and "accept the question on its screen" in seen.obstacle
    with pytest.raises(DeviceUnauthorised, match="accept the question"), AdbAgent(address(phone)):
        pass


def test_part_of_a_serial_says_which_may_have_been_meant(connected: Adbd) -> None:
    with pytest.raises(DeviceUnreachable, match=f"did you mean '{address(connected)}'"), AdbAgent(f"adb:{connected.port}"):
        pass


def test_without_any_phone_it_says_to_plug_one_in(variables: dict[str, str]) -> None:
    adb(variables, "disconnect")
    with pytest.raises(DeviceUnreachable, match="USB debugging"), AdbAgent("adb:ABC123"):
        pass


def test_without_adb_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
    monkeypatch.setenv("ADBUTILS_ADB_PATH", "/nowhere/adb")
    with pytest.raises(DeviceUnreachable, match="apt install adb"), AdbAgent("adb:ABC123"):
        pass
    assert AdbAgent.attached() == []


def test_the_server_may_be_named_by_its_socket(connected: Adbd, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    monkeypatch.delenv("ANDROID_ADB_SERVER_PORT")
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:localhost:{variables['ANDROID_ADB_SERVER_PORT']}")
    assert address(connected) in [one.address for one in AdbAgent.attached()]


def test_a_phone_the_server_is_connected_to_is_reached_through_it(connected: Adbd) -> None:
    assert isinstance(ADB(address(connected), Options()), AdbAgent)


def test_a_phone_the_server_does_not_know_is_reached_directly(phone: Adbd) -> None:
    assert isinstance(ADB(address(phone), Options()), AdbDirectAgent)
