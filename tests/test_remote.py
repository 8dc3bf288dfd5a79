"""Commands at the other end of a login shell: what it prints around them, and that only our own processes are signalled."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from adbd import Adbd
from agent_conformance import gone
from devices import program, recorded
from login_shells import ProcessChannel, ShellAgent

from device_agents.adb.direct import AdbDirectAgent
from device_agents.agent import Options
from device_agents.errors import CommandTimedOut, LinkLost
from device_agents.remote import RemoteProcess, RemoteStream, Source
from profiler.devices.conditioning import conditioned

TITLE = b"\033]0;user@board: ~\007"


class Recorded:
    """A channel on which these bytes have arrived."""

    def __init__(self, data: bytes) -> None:
        self.parts = [(Source.OUT, data)]

    def receive(self, timeout_s: float) -> tuple[Source, bytes]:
        return self.parts.pop(0) if self.parts else (Source.END, b"")

    def send(self, data: bytes) -> None: ...

    def close(self) -> None: ...


def stream(data: bytes) -> RemoteStream:
    return RemoteStream(Recorded(data), "n0nce", "ssh:board", "true")


@pytest.mark.parametrize("printed", [b"", TITLE, b"no newline: ", b"a line\n", TITLE + b"\nn0nce\n", b"\r\n", b"n0nce ended 1 x\n"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_what_a_login_shell_prints_before_a_command_is_neither_its_number_nor_its_output(printed: bytes, end: bytes) -> None:
    running = stream(printed + b"n0nce began 4242 99" + end + b"hello\n\nn0nce ended 1" + end)
    assert running.rest(time.monotonic() + 1, 1) == "hello\n"
    assert (running.process, running.returncode) == (RemoteProcess(4242, "99", "n0nce"), 1)


def test_output_that_does_not_end_its_line_is_followed_by_the_exit_code_all_the_same() -> None:
    running = stream(b"n0nce began 4242 99\nhello\nn0nce ended 0\n")
    assert running.rest(time.monotonic() + 1, 1) == "hello"
    assert running.returncode == 0


@pytest.mark.parametrize(
    "line", [b"n0nce 1", b"n0nce ended 1", b"n0nce began", b"n0nce began 1", b"n0nce began -1 99", b"n0nce began 4242 99 1"]
)
def test_no_other_line_is_taken_for_a_process_id(line: bytes) -> None:
    running = stream(line + b"\n")
    with pytest.raises(LinkLost):
        running.rest(time.monotonic() + 1, 1)
    assert running.process is None


SHELLS = {
    "bash": ["bash", "-c"], "dash": ["dash", "-c"], "busybox": ["busybox", "sh", "-c"], "mksh": ["mksh", "-c"],
    "fish": ["fish", "-c"], "tcsh": ["tcsh", "-f", "-c"], "csh": ["bsd-csh", "-f", "-c"], "zsh": ["zsh", "-c"],
    "ksh": ["ksh93", "-c"], "rc": ["rc", "-c"], "yash": ["yash", "-c"],
}  # fmt: skip


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("HOME", str(tmp_path))
    argv = SHELLS[request.param]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{argv[0]} is not installed")
    return argv


BEFORE = ["", "printf 'no newline: '; ", "echo a line; ", "printf '\\033]0;a title\\007'; "]


@pytest.mark.parametrize("before", BEFORE, ids=["quiet", "no newline", "a line", "a title"])
def test_a_command_runs_under_every_login_shell_whatever_that_prints(shell: list[str], before: str) -> None:
    with ShellAgent(shell, before) as agent:
        result = agent.run(
            [sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(7)", "a  $HOME;b", "it's"], timeout_s=20
        )
        assert (result.stdout, result.returncode) == ("['a  $HOME;b', \"it's\"]\n", 7)
        assert agent._folder == str(Path.home() / "netadapt-profiler")
        assert all(line.startswith("exec sh -c ") and "\n" not in line for line in agent.lines)


def test_a_login_shell_that_runs_nothing_is_told_with_what_it_said() -> None:
    refusing = ["sh", "-c", "echo This account is not available.; exit 1"]
    with pytest.raises(LinkLost, match=r"This account is not available\.; if it was not, the login shell there has to be one"):
        ShellAgent(refusing).__enter__()


AWKWARD = [
    "a\nb",
    "\n",
    "!",
    "a!b !! !$",
    "\\\\",
    "\\'",
    "'\\''",
    "\\n \\\\n",
    "\\0101",
    "%s %b %%",
    "ä\u2028",
    "#x",
    "~",
    "*",
    "",
    "a\tb",
    "^a^b",
]


def test_no_login_shell_reads_anything_into_a_word(shell: list[str]) -> None:
    with ShellAgent(shell, BEFORE[1]) as agent:
        result = agent.run([sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))", *AWKWARD], timeout_s=20)
        assert json.loads(result.stdout) == AWKWARD
        assert not any("\n" in line for line in agent.lines)


def test_files_are_stored_under_every_login_shell(shell: list[str]) -> None:
    with ShellAgent(shell, BEFORE[1]) as agent:
        agent.options = Options(folder=str(Path.home() / "it's a disk!"))
        agent.reconnect()
        folder = Path(agent.store({"a 1": b"one\n", "b-2": b"\0\xff"}))
        assert (folder.parent.name, (folder / "a 1").read_bytes(), (folder / "b-2").read_bytes()) == (
            "it's a disk!", b"one\n", b"\0\xff",
        )  # fmt: skip
        assert [path.name for path in folder.iterdir() if "incoming" in path.name] == []


def test_a_device_is_conditioned_under_every_login_shell(shell: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "getprop", f"cat <<'EOF'\n{recorded('getprop_pixel_6_pro.txt')}EOF")
    program(tmp_path / "bin", "cmd", f'[ "$2" = help ] || echo "$3" >>{tmp_path}/log')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    with ShellAgent(shell, BEFORE[2]) as agent, conditioned(agent, fixed_performance=True) as conditioning:
        assert conditioning.state["build"] == "google/raven/raven:13/EXAMPLE/1:user/release-keys"
        assert conditioning.cores == len(os.sched_getaffinity(0))
    assert (tmp_path / "log").read_text().split() == ["true", "false"]
    assert conditioning.state["restored"] is True


def test_a_folder_below_home_may_be_written_with_a_tilde(shell: list[str]) -> None:
    agent = ShellAgent(shell)
    agent.options = Options(folder="~/a disk")
    with agent:
        assert agent._folder == str(Path.home() / "a disk" / "netadapt-profiler")


def test_a_search_path_for_folders_prints_nothing_that_is_taken_for_an_answer(
    shell: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    agent = ShellAgent(shell)
    agent.options = Options(folder="below")
    with agent:
        assert agent._folder == str(tmp_path / "below" / "netadapt-profiler")
        assert Path(agent.interpreter()).is_file()


def test_a_login_shell_that_prints_a_line_and_kills_nothing_has_not_killed() -> None:
    class Banner(ShellAgent):
        def _open(self, line: str) -> ProcessChannel:
            return ProcessChannel(["echo", "welcome to the board"])

    assert not Banner(["sh", "-c"])._kill(RemoteProcess(4242, "99", "0123456789abcdef"))


SLEEPS_WITH_A_CHILD = (
    "import os, subprocess, sys, time; child = subprocess.Popen(['sleep', '60'], start_new_session=len(sys.argv) > 1); "
    "print(os.getpid(), child.pid, flush=True); time.sleep(60)"
)


@contextmanager
def running(agent: ShellAgent, *more: str) -> Iterator[tuple[RemoteStream, int, int]]:
    """A command with a child, the stream of its lines and both process ids."""
    with agent.stream([sys.executable, "-c", SLEEPS_WITH_A_CHILD, *more], silence_s=20) as lines:
        command, child = map(int, next(iter(lines)).split())
        yield lines, command, child


@pytest.mark.parametrize("session", [(), ("of its own",)], ids=["same session", "session of its own"])
def test_a_command_that_is_left_is_killed_with_what_it_started(shell: list[str], session: tuple[str, ...]) -> None:
    with ShellAgent(shell, BEFORE[1]) as agent, running(agent, *session) as (lines, command, child):
        pass
    assert lines.process is not None
    assert gone(lines.process.pid) and gone(command) and gone(child)


def test_a_command_that_does_not_end_in_time_is_killed_with_what_it_started(shell: list[str], tmp_path: Path) -> None:
    note = tmp_path / "pids"
    code = SLEEPS_WITH_A_CHILD.replace("flush=True", f"file=open({str(note)!r}, 'w'), flush=True")
    with ShellAgent(shell) as agent, pytest.raises(CommandTimedOut):
        agent.run([sys.executable, "-c", code], timeout_s=3)
    assert all(gone(int(pid)) for pid in note.read_text().split())


def test_only_what_is_verified_to_be_ours_is_killed(shell: list[str]) -> None:
    with ShellAgent(shell) as agent, running(agent) as (lines, command, child):
        ours = lines.process
        assert ours is not None
        later = RemoteProcess(ours.pid, str(int(ours.start_ticks) + 1), "0123456789abcdef")
        for other in (
            RemoteProcess(ours.pid, str(int(ours.start_ticks) + 1), ours.nonce[:-1] + "x"),  # the number was given away
            RemoteProcess(ours.pid, ours.start_ticks, "0123456789abcdef"),  # another's command line
            RemoteProcess(ours.pid, "?", "0123456789abcdef"),  # it could not be verified
            later,
        ):
            assert agent._kill(other)
        assert not any(gone(pid, within_s=0.2) for pid in (ours.pid, command, child))


@pytest.mark.parametrize(("later_ticks", "killed"), [(1, False), (0, True)])
def test_a_process_of_the_same_number_and_words_that_started_at_another_time_is_left_alone(later_ticks: int, killed: bool) -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60; : 0123456789abcdef"], start_new_session=True) as process:
        ticks = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()[19])
        line = RemoteProcess(process.pid, str(ticks + later_ticks), "0123456789abcdef").kill_script()
        subprocess.run(["sh", "-c", line], check=True, capture_output=True)
        assert gone(process.pid, within_s=0.5) == killed
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("pid", [0, 1])
def test_a_number_below_two_is_never_signalled(pid: int) -> None:
    line = RemoteProcess(pid, "1", "0123456789abcdef").kill_script()
    signalled = subprocess.run(
        ["sh", "-c", f"kill() {{ echo signalled $*; }}; grep() {{ true; }}; {line}"], capture_output=True, text=True
    )
    assert "signalled" not in signalled.stdout


def test_no_group_is_ever_signalled() -> None:
    line = RemoteProcess(4242, "99", "0123456789abcdef").kill_script()
    assert "kill -9 -" not in line and "killpg" not in line


def test_a_process_that_has_the_number_of_one_from_before_a_restart_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with Adbd() as phone, subprocess.Popen(["sleep", "60"], start_new_session=True) as innocent:
        with AdbDirectAgent(f"adb:{phone.host}:{phone.port}", Options(folder=str(tmp_path))) as agent:
            agent._orphans = {RemoteProcess(innocent.pid, "1", "n0nce")}
            agent.reconnect()
            assert agent._orphans == set()
        assert innocent.poll() is None
        innocent.send_signal(signal.SIGKILL)
