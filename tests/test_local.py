from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from device_agents import open_agent
from device_agents.errors import CommandFailed, CommandTimedOut, DeviceError, UnknownDevice
from device_agents.local import LocalAgent


def python(*code: str) -> list[str]:
    return [sys.executable, "-c", "\n".join(code)]


def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return True
        time.sleep(0.02)
    return False


def test_arguments_are_never_reparsed_by_a_shell() -> None:
    awkward = ["a  $HOME;b", "'\"", "*", ""]
    result = LocalAgent().run([*python("import sys, json", "print(json.dumps(sys.argv[1:]))"), *awkward], timeout_s=20)
    assert result.stdout.strip() == __import__("json").dumps(awkward)


def test_failing_is_a_result_until_someone_checks_it() -> None:
    result = LocalAgent().run(python("import sys", "sys.exit('no luck')"), timeout_s=20)
    assert result.returncode == 1
    with pytest.raises(CommandFailed, match="no luck"):
        result.check()


def test_a_command_that_takes_too_long_is_killed() -> None:
    with pytest.raises(CommandTimedOut, match="killed"):
        LocalAgent().run(python("import time", "time.sleep(60)"), timeout_s=0.3)


def test_a_program_that_does_not_exist_is_named() -> None:
    with pytest.raises(DeviceError, match="no-such-python"):
        LocalAgent().run(["no-such-python"], timeout_s=5)


def test_lines_arrive_while_the_command_runs() -> None:
    code = python("import sys", "print('one', flush=True)", "sys.stdin.readline()")
    with LocalAgent().stream(code, silence_s=20) as stream:
        assert next(iter(stream)) == "one\n"
        assert stream.returncode is None


def test_a_silent_stream_is_an_error() -> None:
    with LocalAgent().stream(python("import time", "time.sleep(60)"), silence_s=0.3) as stream, pytest.raises(CommandTimedOut):
        list(stream)


def test_leaving_a_stream_kills_the_command_and_its_children() -> None:
    code = python(
        "import subprocess, sys, time", "p = subprocess.Popen(['sleep', '60'])", "print(p.pid, flush=True)", "time.sleep(60)"
    )
    with LocalAgent().stream(code, silence_s=20) as stream:
        child = int(next(iter(stream)))
    assert gone(child)


def test_a_full_error_pipe_does_not_block_the_command() -> None:
    code = python("import sys", "sys.stderr.write('x' * 1000000)", "print('done', flush=True)")
    with LocalAgent().stream(code, silence_s=20) as stream:
        assert list(stream) == ["done\n"]


def test_leaving_the_agent_removes_what_was_stored() -> None:
    with LocalAgent() as agent:
        folder = Path(agent.store({"abc": b"data"}))
        assert (folder / "abc").read_bytes() == b"data"
    assert not folder.exists()


def test_an_unknown_address_says_what_may_have_been_meant() -> None:
    with pytest.raises(UnknownDevice, match="did you mean 'local'"):
        open_agent("locale")
