"""What every agent must do, as facts: a test class for a kind of device inherits these and says how to open one.

The device at the other end is this machine, so that its Python is known and what it leaves behind can be looked at.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agents.agent import Agent
from device_agents.errors import CommandFailed, CommandTimedOut


def python(*code: str) -> list[str]:
    return [sys.executable, "-c", "\n".join(code)]


def gone(pid: int, within_s: float = 30.0) -> bool:
    for _ in range(int(within_s / 0.02)):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return True
        time.sleep(0.02)
    return False


STUBBORN = (
    "import os, signal, time",
    "signal.signal(signal.SIGHUP, signal.SIG_IGN)",
    "print(os.getpid(), flush=True)",
    "time.sleep(60)",
)
"""A program that notices nothing of a broken link."""


def named(data: bytes) -> dict[str, bytes]:
    return {f"{hashlib.sha256(data).hexdigest()}.bin": data}


class AgentConformance:
    @pytest.fixture
    def agent(self) -> Iterator[Agent]:
        raise NotImplementedError

    def test_arguments_are_never_reparsed_by_a_shell(self, agent: Agent) -> None:
        awkward = ["a  $HOME;b", "'\"", "*", "", "-n", "\\n", "ä\u2028", "two\nlines"]
        result = agent.run([*python("import sys, json", "print(json.dumps(sys.argv[1:]))"), *awkward], timeout_s=20)
        assert json.loads(result.stdout) == awkward

    def test_output_and_errors_are_told_apart_and_exact(self, agent: Agent) -> None:
        code = python("import sys", "sys.stdout.write('one\\n\\ntwo')", "sys.stderr.write('three\\n')")
        result = agent.run(code, timeout_s=20)
        assert (result.stdout, result.stderr, result.returncode) == ("one\n\ntwo", "three\n", 0)

    def test_no_output_is_no_output(self, agent: Agent) -> None:
        assert agent.run(python("pass"), timeout_s=20).stdout == ""

    def test_much_output_arrives_whole(self, agent: Agent) -> None:
        result = agent.run(python("import sys", "sys.stdout.write('abcdefg\\n' * 300000)"), timeout_s=60)
        assert result.stdout == "abcdefg\n" * 300000

    def test_failing_is_a_result_until_someone_checks_it(self, agent: Agent) -> None:
        result = agent.run(python("import sys", "sys.stderr.write('no luck\\n')", "sys.exit(7)"), timeout_s=20)
        assert result.returncode == 7
        with pytest.raises(CommandFailed, match="no luck"):
            result.check()

    def test_a_signal_is_told_from_an_exit_code(self, agent: Agent) -> None:
        assert agent.run(python("import os", "os.kill(os.getpid(), 11)"), timeout_s=20).returncode == -11

    def test_a_command_reads_nothing(self, agent: Agent) -> None:
        assert agent.run(python("import sys", "print(len(sys.stdin.read()))"), timeout_s=20).stdout == "0\n"

    def test_a_command_that_takes_too_long_is_killed(self, agent: Agent, tmp_path: Path) -> None:
        note = tmp_path / "pid"
        code = python("import os, time", f"open({str(note)!r}, 'w').write(str(os.getpid()))", "time.sleep(60)")
        with pytest.raises(CommandTimedOut, match="killed"):
            agent.run(code, timeout_s=1.0)
        assert gone(int(note.read_text()))

    def test_lines_arrive_while_the_command_runs(self, agent: Agent) -> None:
        with agent.stream(python("import sys", "print('one', flush=True)", "sys.stdin.readline()"), silence_s=20) as stream:
            assert next(iter(stream)) == "one\n"
            assert stream.returncode is None

    def test_what_a_stream_is_told_arrives_at_its_input(self, agent: Agent) -> None:
        code = python("import sys", "while byte := sys.stdin.buffer.read(1): print(byte, flush=True)")
        with agent.stream(code, silence_s=20) as stream:
            heard = iter(stream)
            for byte in (b".", b"\0", b"\n", b"."):
                stream.tell(byte)
                assert next(heard) == f"{byte!r}\n"

    def test_what_a_stream_is_told_after_its_end_is_lost(self, agent: Agent) -> None:
        with agent.stream(python("pass"), silence_s=20) as stream:
            assert list(stream) == []
            stream.tell(b".")
            stream.tell(b".")

    def test_a_stream_ends_with_its_exit_code(self, agent: Agent) -> None:
        with agent.stream(python("import sys", "print('one')", "sys.exit('it is over')"), silence_s=20) as stream:
            assert list(stream) == ["one\n"]
            assert (stream.returncode, stream.stderr) == (1, "it is over\n")

    def test_a_silent_stream_is_an_error(self, agent: Agent) -> None:
        with agent.stream(python("import time", "time.sleep(60)"), silence_s=0.5) as stream, pytest.raises(CommandTimedOut):
            list(stream)

    def test_leaving_a_stream_kills_the_command_and_its_children(self, agent: Agent) -> None:
        code = python(
            "import subprocess, time", "p = subprocess.Popen(['sleep', '60'])", "print(p.pid, flush=True)", "time.sleep(60)"
        )
        with agent.stream(code, silence_s=20) as stream:
            child = int(next(iter(stream)))
        assert gone(child)

    def test_a_full_error_pipe_does_not_block_the_command(self, agent: Agent) -> None:
        code = python("import sys", "sys.stderr.write('x' * 1000000)", "print('done', flush=True)")
        with agent.stream(code, silence_s=20) as stream:
            assert list(stream) == ["done\n"]

    def test_stored_files_arrive_whole_and_may_be_run(self, agent: Agent) -> None:
        script = b"#!/bin/sh\necho it runs\n"
        files = named(os.urandom(3_000_000)) | named(b"") | {"script-1": script}
        folder = Path(agent.store(files))
        assert {name: (folder / name).read_bytes() for name in files} == files
        assert agent.run([f"{folder}/script-1"], timeout_s=20).stdout == "it runs\n"

    def test_files_of_two_calls_lie_in_the_same_folder(self, agent: Agent) -> None:
        first, second = agent.store(named(b"first")), agent.store(named(b"second"))
        assert first == second
        assert {*named(b"first"), *named(b"second")} <= {path.name for path in Path(first).iterdir()}

    def test_what_is_there_is_not_sent_again(self, agent: Agent) -> None:
        folder = Path(agent.store(named(b"data")))
        (path,) = (folder / name for name in named(b"data"))
        before = path.stat().st_mtime_ns
        agent.store(named(b"data"))
        assert path.stat().st_mtime_ns == before

    def test_a_reconnected_agent_goes_on(self, agent: Agent) -> None:
        folder = agent.store(named(b"data"))
        agent.reconnect()
        assert agent.store(named(b"data")) == folder
        assert agent.run(python("print(1)"), timeout_s=20).stdout == "1\n"

    def test_cleaning_removes_all_that_was_stored(self, agent: Agent) -> None:
        data = os.urandom(100_000)
        folder = Path(agent.store(named(data)))
        assert agent.clean() >= 100_000
        assert not folder.exists() or not any(folder.iterdir())
        assert agent.store(named(data))  # and it can be stored again

    def test_the_interpreter_runs_python(self, agent: Agent) -> None:
        assert agent.run([agent.interpreter(), "-c", "print(6 * 7)"], timeout_s=20).stdout == "42\n"
