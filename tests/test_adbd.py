"""The simulated phone against Google's own adb: what that accepts, our agents may be tested against."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from adb_program import adb, adb_environment, connect, needs_adb
from adbd import Adbd

pytestmark = needs_adb
Variables = dict[str, str]


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Variables]:
    with adb_environment(tmp_path_factory.mktemp("home")) as variables:
        subprocess.run(["adb", "start-server"], env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30)
        yield variables


@pytest.fixture
def phone(variables: Variables) -> Iterator[Adbd]:
    with Adbd() as phone:
        connect(variables, serial(phone))
        yield phone
        adb(variables, "disconnect", serial(phone))


def serial(phone: Adbd) -> str:
    return f"{phone.host}:{phone.port}"


def on(phone: Adbd, variables: Variables, *argv: str) -> subprocess.CompletedProcess[str]:
    return adb(variables, "-s", serial(phone), *argv)


def test_adb_connects_and_reads_the_banner(phone: Adbd, variables: Variables) -> None:
    assert "model:Simulated_Phone" in adb(variables, "devices", "-l").stdout
    assert "shell_v2" in on(phone, variables, "features").stdout


def test_adb_offers_its_key_once_and_signs_with_it_after_that(phone: Adbd, variables: Variables) -> None:
    (key,) = phone.keys
    assert key.decode() in (Path(variables["HOME"]) / ".android" / "adbkey.pub").read_text()
    adb(variables, "disconnect", serial(phone))
    connect(variables, serial(phone))
    assert on(phone, variables, "get-state").stdout == "device\n"
    assert phone.keys == {key}


def test_a_phone_that_accepts_no_key_shows_as_unauthorized(variables: Variables) -> None:
    with Adbd() as phone:
        phone.faults.unauthorised = True
        adb(variables, "connect", serial(phone))
        assert f"{serial(phone)}\tunauthorized" in adb(variables, "devices").stdout
        adb(variables, "disconnect", serial(phone))


def test_files_travel_byte_for_byte(phone: Adbd, variables: Variables, tmp_path: Path) -> None:
    here, there, back = tmp_path / "here", tmp_path / "new" / "there", tmp_path / "back"
    here.write_bytes(os.urandom(5_000_001))
    assert on(phone, variables, "push", str(here), str(there)).returncode == 0
    assert there.read_bytes() == here.read_bytes()
    assert on(phone, variables, "pull", str(there), str(back)).returncode == 0
    assert back.read_bytes() == here.read_bytes()


def test_a_folder_can_be_listed(phone: Adbd, variables: Variables, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"12345")
    assert on(phone, variables, "ls", str(tmp_path)).stdout.split()[1::3] == ["00000005"]


def test_a_missing_file_cannot_be_pulled(phone: Adbd, variables: Variables, tmp_path: Path) -> None:
    assert on(phone, variables, "pull", str(tmp_path / "none"), str(tmp_path / "back")).returncode != 0


def test_a_full_disk_is_told(phone: Adbd, variables: Variables, tmp_path: Path) -> None:
    phone.faults.refused_pushes = 1
    (tmp_path / "here").write_bytes(os.urandom(3_000_000))
    pushed = on(phone, variables, "push", str(tmp_path / "here"), str(tmp_path / "there"))
    assert pushed.returncode != 0
    assert "No space left on device" in pushed.stdout + pushed.stderr


def test_a_command_has_an_exit_code_and_errors_apart(phone: Adbd, variables: Variables) -> None:
    result = on(phone, variables, "shell", "echo out; echo err >&2; exit 7")
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 7)


def test_a_command_reads_its_input(phone: Adbd, variables: Variables) -> None:
    argv = ["adb", "-s", serial(phone), "shell", "tr a-z A-Z"]
    result = subprocess.run(argv, env=variables, input="quiet\n", capture_output=True, text=True, timeout=20)
    assert result.stdout == "QUIET\n"


def test_a_phone_without_shell_v2_mixes_both_and_tells_no_exit_code(variables: Variables) -> None:
    with Adbd(features="cmd") as phone:
        connect(variables, serial(phone))
        result = on(phone, variables, "shell", "echo out; echo err >&2; exit 7")
        adb(variables, "disconnect", serial(phone))
    assert (result.stdout, result.stderr, result.returncode) == ("out\nerr\n", "", 0)


def test_several_shells_run_at_once(phone: Adbd, variables: Variables, tmp_path: Path) -> None:
    """Each waits for a file that only the next one makes, the last first."""
    argv = ["adb", "-s", serial(phone), "shell"]
    commands = [f"until [ -e {tmp_path}/{i + 1} ]; do sleep 0.05; done; touch {tmp_path}/{i}; echo {i}" for i in range(3)]
    shells = [subprocess.Popen([*argv, command], env=variables, stdout=subprocess.PIPE, text=True) for command in commands]
    on(phone, variables, "shell", f"touch {tmp_path}/3")
    assert [shell.communicate(timeout=20)[0] for shell in shells] == ["0\n", "1\n", "2\n"]


def test_closing_a_shell_hangs_up_on_the_direct_child_alone(phone: Adbd, variables: Variables, tmp_path: Path) -> None:
    script = (
        f"sleep 30 & echo $! > {tmp_path}/child; trap 'touch {tmp_path}/hup; exit' HUP; echo ready; while :; do sleep 0.1; done"
    )
    argv = ["adb", "-s", serial(phone), "shell", script]
    with subprocess.Popen(argv, env=variables, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None and shell.stdout.readline() == "ready\n"
        shell.kill()
    child = int((tmp_path / "child").read_text())
    for _ in range(1500):
        if (tmp_path / "hup").exists():
            break
        time.sleep(0.02)
    assert (tmp_path / "hup").exists()
    os.kill(child, 9)  # raises if it had been killed too


def test_a_killed_command_tells_its_signal(phone: Adbd, variables: Variables) -> None:
    assert on(phone, variables, "shell", "kill -9 $$").returncode == 128 + 9


def test_programs_of_the_phone_come_first(variables: Variables, tmp_path: Path) -> None:
    (tmp_path / "getprop").write_text("#!/bin/sh\necho simulated\n")
    (tmp_path / "getprop").chmod(0o755)
    with Adbd({"PATH": f"{tmp_path}:/usr/bin:/bin"}) as phone:
        connect(variables, serial(phone))
        assert on(phone, variables, "shell", "getprop").stdout == "simulated\n"
        adb(variables, "disconnect", serial(phone))
