"""Boards over ssh across a network of their own: a namespace at the end of a virtual cable that can be slow, or pulled out."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_conformance import named, python
from sshd import Proxy, Sshd, needs_sshd

from device_agents.agent import Options
from device_agents.errors import CommandTimedOut, DeviceUnreachable, LinkLost
from device_agents.ssh.agent import ALIVE_COUNT, SshAgent

pytestmark = needs_sshd
NETWORK = "198.18.77"
"""Of the range that is set aside for trying out networks (RFC 2544)."""
TICKS = python("import time", "for i in range(600):", "    print(i, flush=True)", "    time.sleep(0.1)")


class ImpatientSsh(SshAgent):
    alive_interval_s = 1


class Cable:
    """From this machine to a namespace, with an address at both ends."""

    def __init__(self) -> None:
        self.namespace = f"board{os.getpid()}"
        self.host, self.board = f"{NETWORK}.1", f"{NETWORK}.2"
        self._near, self._far = f"vn{os.getpid()}", f"vf{os.getpid()}"
        self.inside = ["ip", "netns", "exec", self.namespace]

    def lay(self) -> None:
        tool("ip", "netns", "add", self.namespace)
        tool("ip", "link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self.namespace)
        tool("ip", "addr", "add", f"{self.host}/30", "dev", self._near)
        tool("ip", "link", "set", self._near, "up")
        tool(*self.inside, "ip", "addr", "add", f"{self.board}/30", "dev", self._far)
        self.plug_in()

    def plug_in(self) -> None:
        tool(*self.inside, "ip", "link", "set", self._far, "up")

    def pull_out(self) -> None:
        tool(*self.inside, "ip", "link", "set", self._far, "down")

    def delay(self, ms: int) -> None:
        tool("tc", "qdisc", "add", "dev", self._near, "root", "netem", "delay", f"{ms}ms")

    def remove(self) -> None:
        for command in (["ip", "link", "del", self._near], ["ip", "netns", "del", self.namespace]):
            subprocess.run(command, capture_output=True, check=False)


def tool(*argv: str) -> None:
    """Skips the test, with the reason, where this machine does not let us."""
    if shutil.which(argv[0]) is None:
        pytest.skip(f"`{argv[0]}` is not installed (Debian: iproute2)")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"`{' '.join(argv)}` is not possible here (it takes root, and a kernel that has it): {done.stderr.strip()}")


@pytest.fixture
def cable() -> Iterator[Cable]:
    cable = Cable()
    try:
        cable.lay()
        yield cable
    finally:
        cable.remove()


@pytest.fixture
def sshd(cable: Cable) -> Iterator[Sshd]:
    with tempfile.TemporaryDirectory(prefix="b-") as folder, Sshd(Path(folder), host=cable.board, prefix=cable.inside) as server:
        yield server


def reach(sshd: Sshd) -> SshAgent:
    return ImpatientSsh("ssh:board", Options(ssh_config=str(sshd.config)))


def reconnect(agent: SshAgent) -> None:
    """For a moment after the cable is back, the kernel still remembers that nobody answered."""
    for _ in range(50):
        with contextlib.suppress(DeviceUnreachable):
            agent.reconnect()
            return
        time.sleep(0.2)
    agent.reconnect()


def test_a_board_on_a_network_is_reached(sshd: Sshd, cable: Cable) -> None:
    with reach(sshd) as agent:
        result = agent.run(["ip", "addr"], timeout_s=20)
        assert cable.board in result.stdout
        assert cable.host not in result.stdout


class TestDelay:
    """50 ms a round trip: of the cable itself where the kernel has netem, and of a relay at its near end."""

    @pytest.fixture(params=["cable", "relay"])
    def agent(self, sshd: Sshd, cable: Cable, request: pytest.FixtureRequest) -> Iterator[SshAgent]:
        if request.param == "cable":
            cable.delay(50)
            with reach(sshd) as agent:
                yield agent
        else:
            with Proxy(sshd.port, host=cable.board, delay_s=0.025) as relay:
                sshd.point_at(relay.port, host="127.0.0.1")
                with reach(sshd) as agent:
                    yield agent

    def test_output_and_errors_are_told_apart_and_exact(self, agent: SshAgent) -> None:
        code = python("import sys", "sys.stdout.write('one\\n\\ntwo')", "sys.stderr.write('three\\n')", "sys.exit(7)")
        result = agent.run(code, timeout_s=20)
        assert (result.stdout, result.stderr, result.returncode) == ("one\n\ntwo", "three\n", 7)

    def test_stored_files_arrive_whole(self, agent: SshAgent) -> None:
        files = named(os.urandom(2_000_000)) | named(b"")
        folder = Path(agent.store(files))
        assert {name: (folder / name).read_bytes() for name in files} == files

    def test_a_silent_stream_is_an_error_though_the_link_is_not(self, agent: SshAgent) -> None:
        with agent.stream(["sleep", "60"], silence_s=5) as stream, pytest.raises(CommandTimedOut):
            list(stream)


def test_a_pulled_cable_is_noticed_during_a_stream_and_reconnecting_goes_on(sshd: Sshd, cable: Cable) -> None:
    with reach(sshd) as agent:
        with pytest.raises(LinkLost, match="not responding"), agent.stream(TICKS, silence_s=60) as stream:
            for line in stream:
                if line == "2\n":
                    cable.pull_out()
                    pulled_s = time.monotonic()
        # silence_s would have taken a minute; this is what says that the link is watched at all
        assert time.monotonic() - pulled_s < 10 * (ALIVE_COUNT + 1) * ImpatientSsh.alive_interval_s
        cable.plug_in()
        reconnect(agent)
        assert agent.run(["echo", "one"], timeout_s=20).stdout == "one\n"


def test_a_pulled_cable_is_noticed_during_a_push(sshd: Sshd, cable: Cable) -> None:
    files = named(os.urandom(2_000_000))
    with reach(sshd) as agent:
        cable.pull_out()
        with pytest.raises(LinkLost):
            agent.store(files)
        cable.plug_in()
        reconnect(agent)
        folder = Path(agent.store(files))
        assert all((folder / name).read_bytes() == data for name, data in files.items())


def test_a_cable_pulled_for_a_moment_is_not_a_lost_link(sshd: Sshd, cable: Cable) -> None:
    with reach(sshd) as agent, agent.stream(TICKS, silence_s=60) as stream:
        for line in stream:
            if line == "2\n":
                cable.pull_out()
                time.sleep(0.5)
                cable.plug_in()
            if line == "10\n":
                break
        assert stream.returncode is None


def test_a_board_that_is_not_plugged_in_is_unreachable(sshd: Sshd, cable: Cable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agents.ssh.agent.CONNECT_S", 1)
    cable.pull_out()
    with pytest.raises(DeviceUnreachable, match="switched on, and on this network"), reach(sshd):
        pass
