"""AdbDirectAgent, straight to a simulated phone."""

from __future__ import annotations

import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from adb_conformance import AdbConformance
from adb_program import adb_environment, connect, needs_adb
from adb_shell.auth.keygen import keygen
from adbd import Adbd

from device_agents.adb import direct as adb_direct
from device_agents.adb.direct import AdbDirectAgent
from device_agents.adb.link import LinkPipe
from device_agents.agent import Agent, Options
from device_agents.errors import DeviceUnauthorised, DeviceUnreachable


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def own_keys(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("ANDROID_VENDOR_KEYS", raising=False)


@pytest.fixture
def phone() -> Iterator[Adbd]:
    with Adbd() as phone:
        yield phone


def address(phone: Adbd) -> str:
    return f"adb:{phone.host}:{phone.port}"


class TestAdbDirect(AdbConformance):
    def open(self, phone: Adbd, folder: Path) -> Agent:
        return AdbDirectAgent(address(phone), Options(folder=str(folder)))


def test_a_key_is_made_that_only_the_user_can_read(phone: Adbd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with AdbDirectAgent(address(phone), Options(folder=str(tmp_path))):
        pass
    key = tmp_path / ".android" / "adbkey"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(path.name for path in key.parent.iterdir()) == ["adbkey", "adbkey.pub"]
    (known,) = phone.keys
    assert known.decode() in (key.parent / "adbkey.pub").read_text()


def test_the_key_of_the_user_is_used_again_and_left_alone(phone: Adbd, home: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with AdbDirectAgent(address(phone), Options(folder=str(tmp_path))):
            key = (home / ".android" / "adbkey").read_bytes()
    assert len(phone.keys) == 1
    assert (home / ".android" / "adbkey").read_bytes() == key


@needs_adb
def test_a_phone_that_knows_adb_knows_us(phone: Adbd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with adb_environment(tmp_path) as variables:
        connect(variables, f"{phone.host}:{phone.port}")
    (key,) = phone.keys
    monkeypatch.setenv("HOME", variables["HOME"])
    with AdbDirectAgent(address(phone), Options(folder=str(tmp_path))):
        assert phone.keys == {key}


def test_vendor_keys_are_tried_too(phone: Adbd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keygen(str(tmp_path / "lab.adb_key"))
    vendor = (tmp_path / "lab.adb_key.pub").read_bytes().split()[0]
    phone.keys.add(vendor)
    monkeypatch.setenv("ANDROID_VENDOR_KEYS", str(tmp_path))
    with AdbDirectAgent(address(phone), Options(folder=str(tmp_path))):
        assert phone.keys == {vendor}


def test_a_key_nobody_accepts_says_what_to_do(phone: Adbd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_direct, "ASKED_S", 0.5)
    phone.faults.unauthorised = True
    with pytest.raises(DeviceUnauthorised, match="accept the question"), AdbDirectAgent(address(phone)):
        pass


def test_a_spoilt_key_is_named(phone: Adbd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".android").mkdir()
    (tmp_path / ".android" / "adbkey").write_text("no key")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DeviceUnauthorised, match="adbkey cannot be read"), AdbDirectAgent(address(phone)):
        pass


@pytest.mark.parametrize("wrong", ["adb:somewhere", "adb:somewhere:port", "adb::5555", "adb:somewhere:70000"])
def test_an_address_without_host_and_port_shows_how_to_write_one(wrong: str) -> None:
    with pytest.raises(DeviceUnreachable, match=r"adb:192\.168"), AdbDirectAgent(wrong):
        pass


def test_where_nothing_listens_it_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(DeviceUnreachable, match="adb tcpip"), AdbDirectAgent(f"adb:127.0.0.1:{port}"):
        pass


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 400 Bad Request, and more", "not an adb daemon"),
        (b"STLS\0\0\0\1" + bytes(12) + b"\xac\xb3\xab\xbc", "encrypted"),
        (b"", "cannot be reached"),
        (b"CNX", "cannot be reached"),
        (bytes(range(200, 224)), "not an adb daemon"),
    ],
)
def test_what_is_no_adb_daemon_is_told(answer: bytes, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reply() -> None:
            connection = listener.accept()[0]
            connection.recv(1000)
            connection.sendall(answer)
            connection.close()

        threading.Thread(target=reply, daemon=True).start()
        with (
            pytest.raises(DeviceUnreachable, match=said),
            AdbDirectAgent(f"adb:127.0.0.1:{listener.getsockname()[1]}"),
        ):
            pass


def test_a_command_that_is_over_before_we_look_was_no_refusal(phone: Adbd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a busy host: the answer and the end of the service arrive before the thread that asked runs again."""
    wait = LinkPipe.wait_until_open

    def late(pipe: LinkPipe, timeout_s: float) -> None:
        wait(pipe, timeout_s)
        time.sleep(0.3)

    monkeypatch.setattr(LinkPipe, "wait_until_open", late)
    with AdbDirectAgent(address(phone), Options(folder=str(tmp_path))) as agent:
        assert agent.run(["echo", "done"], timeout_s=20).stdout == "done\n"
