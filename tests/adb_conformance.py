"""What both ways to an Android device must survive, as facts about a simulated phone: a test class says how to open an agent on it,
and its module has a fixture `phone`."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from adbd import Adbd
from agent_conformance import STUBBORN, AgentConformance, gone, named, python

from device_agents.agent import Agent
from device_agents.errors import DeviceError, DeviceUnreachable, LinkLost, StoreFailed

MEGABYTES = {hashlib.sha256(bytes([i])).hexdigest(): os.urandom(1_000_000) for i in range(4)}


class AdbConformance(AgentConformance):
    def open(self, phone: Adbd, folder: Path) -> Agent:
        raise NotImplementedError

    @pytest.fixture
    def agent(self, phone: Adbd, tmp_path: Path) -> Iterator[Agent]:
        with self.open(phone, tmp_path) as agent:
            yield agent

    @pytest.mark.parametrize("after_bytes", [0, 30, 70_000, 2_500_000])
    def test_a_link_that_breaks_during_a_push_is_told_and_can_be_mended(self, agent: Agent, phone: Adbd, after_bytes: int) -> None:
        phone.faults.cut_after_received = after_bytes
        with pytest.raises(LinkLost):
            agent.store(MEGABYTES)
        agent.reconnect()
        self.assert_stored(agent, MEGABYTES)

    @pytest.mark.parametrize("after_bytes", [0, 30, 500, 70_001])
    def test_a_link_that_breaks_during_a_stream_is_told_and_can_be_mended(
        self, agent: Agent, phone: Adbd, after_bytes: int
    ) -> None:
        code = python("import sys", "[print(i, flush=True) for i in range(200000)]", "sys.stdin.read()")
        lines: list[str] = []
        with pytest.raises(LinkLost), agent.stream(code, silence_s=20) as stream:
            phone.faults.cut_after_sent = after_bytes
            lines += stream
        assert lines == [f"{i}\n" for i in range(len(lines))]
        agent.reconnect()
        assert agent.run(python("print(1)"), timeout_s=20).stdout == "1\n"

    def test_a_command_whose_link_breaks_sees_its_input_end(self, agent: Agent, phone: Adbd) -> None:
        code = python("import os, sys", "print(os.getpid(), flush=True)", "sys.stdin.read()")
        with pytest.raises(LinkLost), agent.stream(code, silence_s=20) as stream:
            pid = int(next(iter(stream)))
            phone.cut()
            list(stream)
        assert gone(pid)

    def test_what_outlives_a_broken_link_is_ended_when_it_is_mended(self, agent: Agent, phone: Adbd) -> None:
        with pytest.raises(LinkLost), agent.stream(python(*STUBBORN), silence_s=20) as stream:
            pid = int(next(iter(stream)))
            phone.cut()
            list(stream)
        assert Path(f"/proc/{pid}").exists()
        agent.reconnect()
        assert gone(pid)

    def test_a_push_that_stopped_short_is_noticed_and_repeated(self, agent: Agent, phone: Adbd) -> None:
        phone.faults.short_pushes = 1
        self.assert_stored(agent, MEGABYTES)
        assert phone.faults.short_pushes == 0

    def test_pushes_that_always_stop_short_are_given_up(self, agent: Agent, phone: Adbd) -> None:
        phone.faults.short_pushes = 100
        with pytest.raises(StoreFailed, match="attempts"):
            agent.store(MEGABYTES)

    def test_a_full_disk_says_so_and_what_to_do(self, agent: Agent, phone: Adbd) -> None:
        phone.faults.refused_pushes = 1
        with pytest.raises(StoreFailed, match=r"No space left on device.*profile clean adb:"):
            agent.store(MEGABYTES)
        self.assert_stored(agent, MEGABYTES)

    @pytest.mark.slow
    def test_a_large_push_over_a_slow_link_does_not_time_out(self, agent: Agent, phone: Adbd) -> None:
        """Longer than the ten seconds that adb_shell, or a server's socket, waits for an answer."""
        files = named(os.urandom(6_000_000))
        phone.faults.bytes_per_s, phone.faults.latency_s = 550_000, 0.002
        agent.store(files)
        phone.faults.bytes_per_s, phone.faults.latency_s = None, 0.0
        self.assert_stored(agent, files)

    def test_a_thousand_files_are_stored(self, agent: Agent) -> None:
        files = {hashlib.sha256(str(i).encode()).hexdigest() + ".tflite": str(i).encode() for i in range(1000)}
        self.assert_stored(agent, files)

    def test_short_commands_get_through_while_a_stream_runs(self, agent: Agent) -> None:
        code = python("import sys", "print('on', flush=True)", "sys.stdin.readline()")
        with agent.stream(code, silence_s=20) as stream:
            assert next(iter(stream)) == "on\n"
            assert [agent.run(["echo", str(i)], timeout_s=20).stdout for i in range(5)] == [f"{i}\n" for i in range(5)]

    def test_streams_of_two_threads_do_not_mix(self, agent: Agent) -> None:
        found: dict[str, list[str]] = {}

        def read(word: str) -> None:
            with agent.stream(["sh", "-c", f"for i in $(seq 2000); do echo {word}; done"], silence_s=20) as stream:
                found[word] = list(stream)

        threads = [threading.Thread(target=read, args=(word,)) for word in ("left", "right", "middle")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert found == {word: [f"{word}\n"] * 2000 for word in ("left", "right", "middle")}

    def test_a_killed_command_is_told_from_a_broken_link(self, agent: Agent, phone: Adbd) -> None:
        with agent.stream(["sh", "-c", "kill -9 $$"], silence_s=20) as stream:
            assert list(stream) == []
        assert stream.returncode == -9

    def test_a_phone_that_kills_what_we_run_costs_no_more_than_that(self, agent: Agent, phone: Adbd) -> None:
        code = python("print('on', flush=True)", "import time", "time.sleep(60)")
        with pytest.raises(LinkLost), agent.stream(code, silence_s=20) as stream:
            assert next(iter(stream)) == "on\n"
            for pid in list(phone.processes):
                os.killpg(pid, signal.SIGKILL)
            list(stream)
        assert agent.run(["echo", "1"], timeout_s=20).stdout == "1\n"

    def test_a_phone_before_android_7_is_refused(self, tmp_path: Path) -> None:
        with Adbd(features="cmd") as phone, pytest.raises(DeviceUnreachable, match="older than 7"), self.open(phone, tmp_path):
            pass

    def test_a_phone_that_has_gone_is_unreachable(self, agent: Agent, phone: Adbd) -> None:
        phone.__exit__(None, None, None)
        with pytest.raises(DeviceUnreachable):
            agent.reconnect()

    def test_an_agent_that_is_closed_has_lost_its_link(self, phone: Adbd, tmp_path: Path) -> None:
        with self.open(phone, tmp_path) as agent:
            pass
        with pytest.raises(LinkLost):
            agent.run(["true"], timeout_s=5)

    def test_a_folder_that_cannot_be_made_is_named(self, phone: Adbd, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DeviceError, match="folder"), self.open(phone, tmp_path / "file"):
            pass

    def assert_stored(self, agent: Agent, files: dict[str, bytes]) -> None:
        folder = Path(agent.store(files))
        assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in files} == files
