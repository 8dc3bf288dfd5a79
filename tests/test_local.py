from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_conformance import AgentConformance, named

from device_agents.agent import Agent, Options
from device_agents.discovery import open_agent
from device_agents.errors import CommandFailed, DeviceError, UnknownDevice
from device_agents.local import LocalAgent


class TestLocal(AgentConformance):
    @pytest.fixture
    def agent(self) -> Iterator[Agent]:
        with open_agent("local") as agent:
            yield agent


def test_a_program_that_does_not_exist_is_named() -> None:
    with pytest.raises(DeviceError, match="no-such-python"):
        LocalAgent().run(["no-such-python"], timeout_s=5)


def test_leaving_the_agent_removes_what_was_stored() -> None:
    with LocalAgent() as agent:
        folder = Path(agent.store(named(b"data")))
        assert folder.exists()
    assert not folder.exists()


def test_an_agent_whose_folder_something_else_has_removed_can_be_left() -> None:
    with LocalAgent() as agent:
        shutil.rmtree(agent.store(named(b"data")))


def test_an_unknown_address_says_what_may_have_been_meant() -> None:
    with pytest.raises(UnknownDevice, match="did you mean 'local'"):
        open_agent("locale")


def test_a_long_script_is_cut_short_in_messages() -> None:
    with pytest.raises(CommandFailed) as told:
        LocalAgent().run(["sh", "-c", "true\n" * 200 + "exit 3"], timeout_s=20).check()
    assert str(told.value) == "`sh -c true...` ended with code 3: it printed nothing"


def test_what_a_killed_host_has_left_behind_is_removed_and_nothing_that_is_in_use(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom device_agents.agent import Options\nfrom device_agents.local import LocalAgent\n"
        "with LocalAgent(options=Options(folder=sys.argv[1])) as agent:\n"
        "    print(agent.store({'a-1': b'x'}), flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=-1, stdout=-1, text=True) as host:
        assert host.stdout is not None
        folder = Path(host.stdout.readline().strip())
        os.utime(folder, (0, 0))
        with LocalAgent(options=Options(folder=str(tmp_path))):
            assert (folder / "a-1").exists()
        host.kill()
    assert (folder / "a-1").exists()
    with LocalAgent(options=Options(folder=str(tmp_path))):
        assert not folder.exists()


def test_a_folder_below_home_may_be_written_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a disk").mkdir()
    with LocalAgent(options=Options(folder="~/a disk")) as agent:
        assert Path(agent.store(named(b"data"))).parent == tmp_path / "a disk"


def test_a_file_that_is_no_program_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(b"\x7fELF and nothing else")
    (tmp_path / "tool").chmod(0o755)
    with pytest.raises(DeviceError, match="cannot be run on this machine: Exec format error; give another program"):
        LocalAgent().run([str(tmp_path / "tool")], timeout_s=5)
