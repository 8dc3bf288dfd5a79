from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from device_agents.device_lock import device_lock, holder, lock_path
from device_agents.discovery import open_agent
from device_agents.errors import DeviceBusy, DeviceError
from device_agents.local import LocalAgent
from device_agents.support.locks import Holder


def lock(address: str, *, wait_s: float = 0.0, say: Callable[[str], None] | None = None) -> AbstractContextManager[None]:
    """That of a device which is not opened: nothing need be there at the address."""
    return device_lock(LocalAgent(address), wait_s=wait_s, say=say)


ROOT = Path(__file__).parent.parent
HOLD = """
import sys
from device_agents.device_lock import device_lock
from device_agents.local import LocalAgent
with device_lock(LocalAgent(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
print("free", flush=True)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@contextmanager
def held_elsewhere(address: str = "pixel") -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_device_that_is_free_can_be_had_again_and_again() -> None:
    for _ in range(2):
        with lock("pixel"):
            pass


def test_a_device_held_by_another_process_is_busy() -> None:
    with held_elsewhere() as process, pytest.raises(DeviceBusy) as caught, lock("pixel"):
        pass
    assert f"(pid {process.pid}) since" in str(caught.value)
    assert str(caught.value).endswith("; wait for it")


def test_a_device_is_busy_for_its_own_process_too() -> None:
    with lock("pixel"), pytest.raises(DeviceBusy, match=f"pid {os.getpid()}"), lock("pixel"):
        pass


def test_other_devices_stay_free() -> None:
    with held_elsewhere("pixel"), lock("ssh:pixel"):
        pass


def test_a_killed_holder_holds_nothing() -> None:
    with held_elsewhere() as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert holder("pixel") is None
        with lock("pixel"):
            assert holder("pixel") is not None


def test_a_holder_that_fails_holds_nothing() -> None:
    with pytest.raises(RuntimeError), lock("pixel"):
        raise RuntimeError
    assert holder("pixel") is None
    with lock("pixel"):
        pass


def test_a_child_does_not_inherit_the_lock() -> None:
    with lock("pixel"):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with lock("pixel"):
            pass
    finally:
        child.kill()
        child.wait()


def test_waiting_is_said_once_and_ends_when_the_device_becomes_free() -> None:
    said: list[str] = []
    with held_elsewhere() as process:

        def say(text: str) -> None:
            said.append(text)
            let_go(process)

        with lock("pixel", wait_s=60, say=say):
            pass
    assert len(said) == 1
    assert "waiting for it" in said[0]


def test_one_who_waits_in_vain_is_told_who_has_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    said: list[str] = []
    waits = lock("pixel", wait_s=5, say=said.append)
    with held_elsewhere() as process, pytest.raises(DeviceBusy, match=f"pid {process.pid}"), waits:
        pass
    assert len(said) == 1
    assert now == pytest.approx(5)


def test_the_holder_can_be_read_while_the_device_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/profile", "build", "secret.json", "--out", "x"])
    with lock("pixel"):
        found = holder("pixel")
        assert found is not None
        assert (found.pid, found.command) == (os.getpid(), "profile build")
        assert json.loads(lock_path("pixel").read_text()).keys() == {"pid", "command", "since_s"}
    assert holder("pixel") is None


def test_the_time_is_told_as_the_clock_on_the_wall_shows_it() -> None:
    now = time.localtime()
    assert str(Holder(123, "profile build", time.time())).startswith(f"`profile build` (pid 123) since {now.tm_hour:02}:")
    assert str(Holder(123, "profile build", 86400.0 * 365)).startswith("`profile build` (pid 123) since 197")


@pytest.mark.parametrize("damage", ["", "garbage", "[]", '{"pid": "x"}', '{"pid": 1e400, "command": "", "since_s": 0}'])
def test_a_holder_that_cannot_be_read_is_another_run(damage: str) -> None:
    with held_elsewhere():
        lock_path("pixel").write_text(damage)
        with pytest.raises(DeviceBusy, match="by another run"), lock("pixel"):
            pass


def test_addresses_of_any_kind_have_files_of_their_own(cache: Path) -> None:
    addresses = ["adb:R58/../x", "adb:R58---x", "ä" * 300, "ssh:me@[::1]:22", ""]
    paths = {lock_path(address) for address in addresses}
    assert len(paths) == len(addresses)
    assert {path.parent for path in paths} == {cache / "netadapt-profiler" / "locks"}


def test_a_folder_that_is_none_is_told_plainly(cache: Path) -> None:
    (cache / "netadapt-profiler").write_text("")
    with pytest.raises(DeviceError, match="XDG_CACHE_HOME"), lock("pixel"):
        pass


def test_without_a_cache_folder_of_its_own_it_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert lock_path("pixel").parent == tmp_path / ".cache" / "netadapt-profiler" / "locks"


def test_a_device_that_is_shared_needs_no_lock(cache: Path) -> None:
    (cache / "script.toml").write_text('[runtimes]\nlitert = "2.3.0"\n')
    agent = open_agent(f"fake:{cache}/script.toml")
    with device_lock(agent), device_lock(agent):
        assert not (cache / "netadapt-profiler").exists()
