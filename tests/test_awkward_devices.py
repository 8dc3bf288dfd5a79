"""Devices as people have them: a Python that is too old, a folder that cannot execute, a full disk, too few cores."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from devices import Device as Machine
from devices import program
from login_shells import ProcessChannel, ShellAgent
from typer.testing import CliRunner, Result

from device_agents.agent import Agent, CommandResult, Options
from device_agents.errors import DeviceError, StoreFailed
from device_agents.local import LocalAgent
from device_agents.support.errors import ToolError
from profiler.cli.app import app
from profiler.devices.conditioning import Conditioned, conditioned
from profiler.devices.config import Device
from profiler.devices.doctor import examine, judge
from profiler.devices.interpreter import too_old
from profiler.errors import RunnerError
from profiler.measure.opening import _check_threads, open_session
from profiler.protocol.settings import Target
from profiler.runners.native import NativeRunner
from profiler.runners.program import how_it_ended
from profiler.runners.python import PythonRunner


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


# ----------------------------------------------------------------------------------------------------------------- Python

OLD = {
    "2.7": ("Python 2.7.18", "SyntaxError: future feature annotations is not defined", ">&2"),
    "3.5": ("Python 3.5.2", "SyntaxError: invalid syntax", ""),
    "3.6": ("Python 3.6.9", "SyntaxError: future feature annotations is not defined", ""),
    "3.7": ("Python 3.7.3", "SyntaxError: invalid syntax", ""),
}


@pytest.fixture(params=OLD)
def old_python(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A script that answers as such an interpreter does."""
    version, said, stream = OLD[request.param]
    name = f"python{request.param}"
    program(tmp_path / "bin", name, f'[ "$1" = --version ] && {{ echo {version} {stream}; exit; }}\necho "{said}" >&2\nexit 1')
    return str(tmp_path / "bin" / name)


def test_a_python_that_is_too_old_is_named_with_the_way_out(old_python: str) -> None:
    with LocalAgent() as agent, pytest.raises(RunnerError) as told:
        PythonRunner(agent, Device("board", "local"), Target("board", python=old_python)).probe()
    version = Path(old_python).name.removeprefix("python")
    for part in (f" is Python {version}", "3.8 or later is needed", "--python", "native runner"):
        assert part in str(told.value)


def test_a_newer_python_that_is_there_is_named(tmp_path: Path) -> None:
    program(tmp_path, "python3", "echo Python 3.6.9")
    program(tmp_path, "python3.8", "echo Python 3.8.0")
    assert f"such as --python {tmp_path}/python3.8," in str(too_old(Only(tmp_path), "python3"))
    (tmp_path / "python3.8").unlink()
    assert "a newer one with --python or" in str(too_old(Only(tmp_path), "python3"))


class Only(LocalAgent):
    """A device that has no programs but these."""

    def __init__(self, programs: Path) -> None:
        super().__init__()
        self._programs = programs

    def run(self, argv: Sequence[str], *, timeout_s: float) -> CommandResult:
        found = {"sh": "/bin/sh"}.get(argv[0], str(self._programs / argv[0]))
        return super().run(["/usr/bin/env", f"PATH={self._programs}", found, *argv[1:]], timeout_s=timeout_s)


def test_every_command_says_so(old_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROFILE_CONFIG", raising=False)
    for words in (["devices"], ["doctor"]):
        result = run(*words, "--python", old_python)
        assert result.exit_code == 0, result.output
        assert "3.8 or later is needed" in result.output
        assert "SyntaxError" not in result.output


def test_the_doctor_tells_all_else_where_python_is_too_old(old_python: str) -> None:
    with LocalAgent() as agent:
        found = examine(agent, old_python)
    assert (found.speed_ns, found.cores) == (None, os.cpu_count())
    (finding,) = [finding for finding in judge(found) if "3.8 or later" in finding.what]
    assert "--python" in finding.next_step


@pytest.mark.parametrize("name", ["no-such-python", "/etc/hostname", "/bin/false"])
def test_the_doctor_tells_all_else_where_the_interpreter_is_none(name: str) -> None:
    with LocalAgent() as agent:
        found = examine(agent, name)
    assert found.speed_ns is None and found.speed_obstacle is not None and name in found.speed_obstacle
    assert found.cores == os.cpu_count()


def test_the_doctor_tells_all_else_where_no_file_can_be_stored() -> None:
    with LocalAgent(options=Options(folder="/proc")) as agent:
        found = examine(agent)
    assert "folder = " in str(found.speed_obstacle)
    assert found.cores == os.cpu_count()


def test_an_error_of_syntax_in_a_new_python_is_told_as_it_is(tmp_path: Path) -> None:
    body = '[ "$1" = --version ] && { echo Python 3.12.1; exit; }\necho "SyntaxError: bad" >&2\nexit 1'
    program(tmp_path, "python3", body)
    with LocalAgent() as agent, pytest.raises(RunnerError, match="code 1: SyntaxError: bad"):
        PythonRunner(agent, Device("board", "local"), Target("board", python=f"{tmp_path}/python3")).probe()


# ---------------------------------------------------------------------------------------------------------------- folders


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A folder from which nothing can be executed."""
    disk = tmp_path / "noexec"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,size=20m", "none", str(disk)], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"no file system can be mounted here (root may): {made.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


SHELLS = {"dash": "dash", "bash": "bash", "busybox": "busybox sh", "mksh": "mksh"}


class Board(ShellAgent):
    """This machine as a board whose `sh` is a given one."""

    def __init__(self, folder: Path, shell: str) -> None:
        super().__init__([*shell.split(), "-c"])
        self.options = Options(folder=str(folder))
        self._sh = shell

    def _open(self, line: str) -> ProcessChannel:
        return super()._open(line.replace("exec sh ", f"exec {self._sh} ", 1))


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return SHELLS[request.param]


def measured_with(agent: Agent, path: Path) -> str:
    """The error of a native runner that is this file."""
    with agent, pytest.raises((RunnerError, DeviceError)) as told:
        NativeRunner(agent, Device("board", "ssh:here", native=path), Target("board", "fake")).probe()
    return str(told.value)


def test_a_folder_that_cannot_execute_is_told_with_the_setting_that_helps(mounted: Path, tmp_path: Path, shell: str) -> None:
    program(tmp_path, "measure", "exit 0")
    said = measured_with(Board(mounted, shell), tmp_path / "measure")
    assert "noexec" in said and "folder = " in said and "profile.toml" in said


def test_a_folder_of_this_machine_that_cannot_execute_is_told_likewise(mounted: Path, tmp_path: Path) -> None:
    program(tmp_path, "measure", "exit 0")
    said = measured_with(LocalAgent(options=Options(folder=str(mounted))), tmp_path / "measure")
    assert "noexec" in said and "folder = " in said and "--python" not in said


@pytest.mark.parametrize("said", [
    "sh: 1: /home/user/.cache/netadapt-profiler/measure-0ad38509556b20e2: Permission denied",
    "sh: /data/local/tmp/netadapt-profiler/measure: can't execute: Permission denied",
    "/bin/sh: /sdcard/netadapt-profiler/measure: Operation not permitted",
])  # fmt: skip
def test_what_shells_say_of_such_a_folder_is_understood(said: str) -> None:
    assert "noexec" in how_it_ended(126, said) and "folder = " in how_it_ended(126, said)


def test_an_interpreter_that_may_not_be_run_is_not_blamed_on_the_folder() -> None:
    said = how_it_ended(126, "sh: 1: /opt/python: Permission denied")
    assert "noexec" not in said and "--python" in said


def elf(machine: int) -> bytes:
    """The head of a program for Linux on this kind of processor, with nothing behind it."""
    return (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x400000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        + bytes(56)
    )


def test_a_program_for_another_processor_is_told_as_such(tmp_path: Path, shell: str) -> None:
    (tmp_path / "measure").write_bytes(elf(0x9026))
    said = measured_with(Board(tmp_path, shell), tmp_path / "measure")
    assert "another processor" in said and "native = " in said


def test_a_shell_that_runs_two_lines_of_such_a_program_at_once_is_understood() -> None:
    mixed = "/home/user/.cache/netadapt-profiler/measure: /home/user/.cache/netadapt-profiler/measure: line 1: \x01@8: not found\n"
    assert "another processor" in how_it_ended(127, mixed + "line 1: \x7fELF: not found\n")


def test_a_program_whose_loader_is_not_there_is_told_as_such(tmp_path: Path, shell: str) -> None:
    (tmp_path / "measure").write_text("#!/lib/ld-musl-none.so.1\n")
    said = measured_with(Board(tmp_path, shell), tmp_path / "measure")
    assert "native = " in said and "loader" in said


def test_a_disk_that_is_full_while_measuring_is_told_with_the_way_out() -> None:
    said = how_it_ended(1, "Traceback\nOSError: [Errno 28] No space left on device")
    assert "profile clean" in said and "folder = " in said


def test_a_folder_of_this_machine_that_is_full_is_told_with_the_way_out(tmp_path: Path) -> None:
    with LocalAgent(options=Options(folder=str(tmp_path / "nowhere"))) as agent, pytest.raises(StoreFailed, match="folder = "):
        agent.store({"a": b"a"})


# ---------------------------------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize(("cores", "threads"), [(1, 2), (4, 5), (4, 999)])
def test_more_threads_than_cores_are_refused_with_the_number_and_the_option_to_mean_it(cores: int, threads: int) -> None:
    with pytest.raises(ToolError, match=rf"board has {cores} core.* {threads} threads .*--threads {cores}, .*--oversubscribe"):
        _check_threads(Device("board", "ssh:board"), threads, cores, None)


@pytest.mark.parametrize(("cores", "threads"), [(4, 4), (4, 1), (None, 64)])
def test_as_many_threads_as_cores_and_an_unknown_number_of_cores_are_accepted(cores: int | None, threads: int) -> None:
    _check_threads(Device("board", "ssh:board"), threads, cores, None)


def test_more_threads_than_the_cores_they_are_kept_to_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"core 7 of pixel.*cpus = \"all\".*--oversubscribe"):
        _check_threads(Device("pixel", "adb:1"), 4, 8, (7,))


@pytest.mark.parametrize("words", [["benchmark"], ["layers"], ["build", "--out", "t.parquet", "--runtime", "onnxruntime"]])
def test_every_command_that_measures_refuses_before_anything_is_run(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from profiler.formats.model_file import FORMATS
    from profiler.layers.graph import Graph
    from profiler.layers.layer import conv2d

    (tmp_path / "m.onnx").write_bytes(FORMATS["onnx"].write(Graph.of_layer(conv2d((1, 8, 8, 4), 4, 3))))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROFILE_CONFIG", raising=False)
    monkeypatch.setattr(PythonRunner, "run", lambda *_: pytest.fail("it was run"))
    result = run(words[0], "m.onnx", *words[1:], "--threads", "999")
    assert result.exit_code == 1
    assert f"local has {len(os.sched_getaffinity(0))} core" in result.stderr and "--oversubscribe" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def state_of(agent: Agent) -> Conditioned:
    with conditioned(agent, fixed_performance=False) as found:
        return found


def test_the_cores_that_count_are_those_that_a_device_lets_us_use(tmp_path: Path) -> None:
    first = min(os.sched_getaffinity(0))
    assert state_of(Machine(shell=("taskset", "-c", str(first), "sh"))).cores == 1
    assert state_of(Machine()).cores == len(os.sched_getaffinity(0))


class Untold(Machine):
    """A device whose files and programs do not tell its cores."""

    def run(self, argv: Sequence[str], *, timeout_s: float) -> CommandResult:
        hidden = ("/sys/devices/system/cpu/online", "/proc/self/status", "_NPROCESSORS_ONLN")
        words = list(argv) if argv[0] == "sh" else None
        for name in hidden if words else ():
            words = [word.replace(name, "/nowhere") for word in words or ()]
        return super().run(words or argv, timeout_s=timeout_s)


def test_where_its_files_do_not_tell_its_cores_the_runner_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Untold() as agent:
        assert state_of(agent).cores is None
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROFILE_CONFIG", raising=False)
    monkeypatch.setattr("profiler.measure.opening.open_agent", lambda address, options: Untold())
    with pytest.raises(ToolError, match=f"has {os.cpu_count()} core"), open_session(Target(threads=999)):
        pass
