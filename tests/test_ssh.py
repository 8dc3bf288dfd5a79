"""Boards over ssh, tried with OpenSSH's own client and server on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent_conformance import STUBBORN, AgentConformance, gone, named, python
from hypothesis import given
from hypothesis import strategies as st
from sshd import Proxy, Sshd, free_port, make_key, needs_sshd

from device_agents.agent import Options
from device_agents.errors import DeviceUnauthorised, DeviceUnreachable, LinkLost, StoreFailed, UnknownDevice
from device_agents.ssh.agent import SshAgent, destination

TICKS = python("import time", "for i in range(600):", "    print(i, flush=True)", "    time.sleep(0.1)")
SHIM = """#!/bin/sh
# Does what it is named after, but for the first time, when it does this instead:
if mkdir {mark} 2>/dev/null; then {instead}; else exec {program} "$@"; fi
"""


class ImpatientSsh(SshAgent):
    alive_interval_s = 1


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, unlike pytest's: nothing but a board's address should decide how long paths are."""
    with tempfile.TemporaryDirectory(prefix="board-") as path:
        yield Path(path)


@pytest.fixture
def sshd(folder: Path) -> Iterator[Sshd]:
    with Sshd(folder / "board") as server:
        yield server


def reach(sshd: Sshd, *, folder: Path | None = None) -> SshAgent:
    return ImpatientSsh("ssh:board", Options(ssh_config=str(sshd.config), folder=str(folder) if folder else None))


def stored(agent: SshAgent, files: dict[str, bytes]) -> bool:
    """Whether all are there, whole."""
    there = Path(agent.store(files))
    return all((there / name).read_bytes() == data for name, data in files.items())


def clients(sshd: Sshd) -> list[int]:
    """Every ssh process that was started with this server's configuration."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if path.read_bytes().startswith(b"ssh\0") and str(sshd.config).encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def eventually(fact: Callable[[], bool]) -> bool:
    for _ in range(1200):
        if fact():
            return True
        time.sleep(0.05)
    return False


@needs_sshd
class TestSsh(AgentConformance):
    @pytest.fixture
    def agent(self, sshd: Sshd) -> Iterator[SshAgent]:
        with reach(sshd) as agent:
            yield agent


@needs_sshd
class TestTheConnection:
    def test_many_commands_share_one_login(self, sshd: Sshd) -> None:
        with reach(sshd) as agent:
            for _ in range(10):
                agent.run(["true"], timeout_s=20).check()
            agent.store(named(b"data"))
            with agent.stream(["echo", "one"], silence_s=20) as stream:
                assert list(stream) == ["one\n"]
        assert sshd.accepted() == 1

    def test_leaving_leaves_no_process_and_no_socket(self, sshd: Sshd, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sockets = folder / "sockets"
        sockets.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(sockets))
        with reach(sshd) as agent:
            agent.run(["true"], timeout_s=20)
            (private,) = sockets.iterdir()
            assert private.stat().st_mode & 0o777 == 0o700
        assert not list(sockets.iterdir())
        assert clients(sshd) == []
        assert eventually(lambda: sshd.servers() == [] and sshd.commands() == [])

    def test_a_failed_login_leaves_nothing_either(self, sshd: Sshd, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sockets = folder / "sockets"
        sockets.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(sockets))
        sshd.point_at(free_port())
        with pytest.raises(DeviceUnreachable), reach(sshd):
            pass
        assert (list(sockets.iterdir()), clients(sshd)) == ([], [])

    def test_a_long_temporary_folder_does_not_make_the_socket_path_too_long(
        self, sshd: Sshd, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deep = folder / ("a" * 100)
        deep.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(deep))
        with reach(sshd) as agent:
            assert agent.run(["echo", "one"], timeout_s=20).stdout == "one\n"

    def test_a_killed_host_leaves_nothing_running(self, sshd: Sshd) -> None:
        code = python(
            "import sys, time",
            "from device_agents.agent import Options",
            "from device_agents.ssh.agent import SshAgent",
            f"with SshAgent('ssh:board', Options(ssh_config={str(sshd.config)!r})) as agent:",
            "    with agent.stream(['cat'], silence_s=20):",
            "        print('ready', flush=True)",
            "        time.sleep(60)",
        )
        root = str(Path(__file__).parent.parent)
        host = subprocess.Popen(code, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root, "TMPDIR": str(sshd.folder)})
        with host:
            assert host.stdout is not None
            assert host.stdout.readline() == b"ready\n"
            assert clients(sshd)
            host.kill()
        assert eventually(lambda: clients(sshd) == [])
        assert eventually(lambda: sshd.commands() == [])

    def test_a_greeting_of_the_login_shell_does_not_disturb(self, folder: Path) -> None:
        banner = folder / "banner"
        banner.write_text("No entry. Connection refused to strangers.\n")
        greeting = 'ForceCommand echo "Welcome!"; echo Have fun.; eval "$SSH_ORIGINAL_COMMAND"'
        with Sshd(folder / "board", settings=[greeting, f"Banner {banner}"]) as sshd, reach(sshd) as agent:
            assert agent.run(["echo", "one"], timeout_s=20).stdout == "one\n"
            assert stored(agent, named(os.urandom(100_000)))

    @pytest.mark.parametrize("shell", ["bash", "dash", "fish", "tcsh", "busybox sh", "mksh", "zsh"])
    def test_commands_and_files_pass_any_login_shell_whatever_it_prints(self, folder: Path, shell: str) -> None:
        program = shutil.which(shell.split()[0])
        if program is None:
            pytest.skip(f"{shell} is not installed")
        before, after = "echo a line; printf '\\033]0;a title\\007no newline: '", "printf bye"
        login = f'ForceCommand {before}; {" ".join([program, *shell.split()[1:]])} -c "$SSH_ORIGINAL_COMMAND"; {after}'
        with Sshd(folder / "board", settings=[login]) as sshd, reach(sshd, folder=folder / "it's a disk!") as agent:
            awkward = ["two\nlines", "a!b", "\\\\", "\\'", "it's"]
            result = agent.run([*python("import json, sys", "print(json.dumps(sys.argv[1:]))"), *awkward], timeout_s=20)
            assert json.loads(result.stdout) == awkward
            assert stored(agent, named(os.urandom(300_000)))
            with agent.stream(python(*STUBBORN), silence_s=20) as stream:
                pid = int(next(iter(stream)))
            assert gone(pid)

    def test_options_of_the_configuration_do_not_disturb(self, sshd: Sshd) -> None:
        terminal = ["RequestTTY force", "RemoteCommand echo no", "PermitLocalCommand yes", "LocalCommand echo no"]
        master = ["ControlMaster auto", "ControlPersist 60", f"ControlPath {sshd.folder}/own"]
        sshd.point_at(sshd.port, *terminal, *master, f"LocalForward {free_port()} localhost:1", "LogLevel QUIET")
        with reach(sshd) as agent:
            result = agent.run(["echo", "one"], timeout_s=20)
            assert (result.stdout, result.stderr) == ("one\n", "")
        assert clients(sshd) == []

    def test_a_jump_host_works(self, sshd: Sshd) -> None:
        config = sshd.point_at(sshd.port)
        config.write_text(config.read_text() + "\n" + config.read_text().replace("Host board", "Host behind") + "ProxyJump board\n")
        with SshAgent("ssh:behind", Options(ssh_config=str(config))) as agent:
            assert agent.run(["echo", "one"], timeout_s=20).stdout == "one\n"
            assert sshd.accepted() == 2
        assert eventually(lambda: clients(sshd) == [])

    def test_a_port_may_be_named(self, sshd: Sshd) -> None:
        sshd.point_at(free_port())
        with SshAgent(f"ssh:board:{sshd.port}", Options(ssh_config=str(sshd.config))) as agent:
            assert agent.run(["echo", "one"], timeout_s=20).stdout == "one\n"

    def test_a_slow_link_is_slow_and_nothing_else(self, sshd: Sshd) -> None:
        with Proxy(sshd.port, delay_s=0.05, bytes_per_s=4e6) as link:
            sshd.point_at(link.port)
            with reach(sshd) as agent:
                assert agent.run(["echo", "one"], timeout_s=20).stdout == "one\n"
                assert stored(agent, named(os.urandom(1_000_000)))

    def test_a_child_left_behind_does_not_hold_up_its_parent(self, sshd: Sshd) -> None:
        with reach(sshd) as agent:
            result = agent.run(["sh", "-c", "sleep 5 & echo one; echo two >&2"], timeout_s=20)
            assert (result.stdout, result.stderr) == ("one\n", "two\n")

    def test_thousands_of_small_files_are_stored(self, sshd: Sshd) -> None:
        files = {name: data for i in range(3000) for name, data in named(b"%d" % i).items()}
        with reach(sshd) as agent:
            assert stored(agent, files)


@needs_sshd
class TestRefusals:
    def test_a_wrong_key_is_not_authorised(self, sshd: Sshd, folder: Path) -> None:
        sshd.point_at(sshd.port, identity=make_key(folder / "stranger"))
        with pytest.raises(DeviceUnauthorised, match=r"Permission denied.*ssh-copy-id board"), reach(sshd):
            pass

    def test_a_changed_host_key_is_not_authorised(self, sshd: Sshd, folder: Path) -> None:
        sshd.trust(make_key(folder / "former"))
        with pytest.raises(DeviceUnauthorised, match=r"CHANGED.*ssh-keygen -R"), reach(sshd):
            pass

    def test_an_unknown_host_key_is_not_authorised(self, sshd: Sshd) -> None:
        sshd.known_hosts.write_text("")
        with pytest.raises(DeviceUnauthorised, match="not known yet; log in once by hand with `ssh board`"), reach(sshd):
            pass
        assert sshd.known_hosts.read_text() == ""

    def test_a_refused_port_is_unreachable(self, sshd: Sshd) -> None:
        sshd.point_at(free_port())
        with pytest.raises(DeviceUnreachable, match="Connection refused; is an ssh server running"), reach(sshd):
            pass

    def test_an_unknown_name_is_unreachable(self, sshd: Sshd) -> None:
        sshd.point_at(sshd.port, host="no-such-host.invalid")
        with pytest.raises(DeviceUnreachable, match=r"no-such-host.invalid.*check the name"), reach(sshd):
            pass

    def test_a_host_that_answers_nothing_is_unreachable(self, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("device_agents.ssh.agent.CONNECT_S", 1)
        with Proxy(sshd.port, delay_s=60) as link:
            sshd.point_at(link.port)
            with pytest.raises(DeviceUnreachable, match=r"timed out.*switched on"), reach(sshd):
                pass

    def test_a_refused_jump_is_unreachable(self, sshd: Sshd) -> None:
        config = sshd.point_at(sshd.port)
        behind = config.read_text().replace("Host board", "Host behind").replace(f"Port {sshd.port}", f"Port {free_port()}")
        config.write_text(f"{config.read_text()}\n{behind}ProxyJump board\n")
        with pytest.raises(DeviceUnreachable, match="refused"), SshAgent("ssh:behind", Options(ssh_config=str(config))):
            pass

    def test_an_account_without_a_shell_says_so(self, folder: Path) -> None:
        no_shell = "ForceCommand echo This account is not available.; exit 1"
        refused = pytest.raises(DeviceUnauthorised, match="This account is not available")
        with Sshd(folder / "board", settings=[no_shell]) as sshd, refused, reach(sshd):
            pass

    def test_a_broken_configuration_is_named(self, sshd: Sshd) -> None:
        sshd.point_at(sshd.port, "NoSuchOption yes")
        with pytest.raises(DeviceUnreachable, match=r"(?i)Bad configuration option: nosuchoption.*fix"), reach(sshd):
            pass

    def test_a_host_without_ssh_is_told_what_to_install(self, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(sshd.folder))
        with pytest.raises(DeviceUnreachable, match="openssh-client"), reach(sshd):
            pass


@needs_sshd
class TestFaults:
    @pytest.mark.parametrize("fault", [Sshd.cut, Sshd.hang], ids=["cut", "silent"])
    def test_a_link_lost_during_a_stream_is_noticed_and_reconnecting_goes_on(
        self, sshd: Sshd, fault: Callable[[Sshd], None]
    ) -> None:
        with reach(sshd) as agent:
            with pytest.raises(LinkLost, match="ssh:board was lost: "), agent.stream(TICKS, silence_s=60) as stream:
                for line in stream:
                    if line == "2\n":
                        fault(sshd)
            agent.reconnect()
            assert agent.run(["echo", "one"], timeout_s=20).stdout == "one\n"
            sshd.resume()

    @pytest.mark.parametrize("fault", [Sshd.cut, Sshd.hang], ids=["cut", "silent"])
    def test_what_outlives_a_broken_link_is_ended_when_it_is_mended(self, sshd: Sshd, fault: Callable[[Sshd], None]) -> None:
        with reach(sshd) as agent:
            with pytest.raises(LinkLost), agent.stream(python(*STUBBORN), silence_s=60) as stream:
                pid = int(next(iter(stream)))
                fault(sshd)
                list(stream)
            assert Path(f"/proc/{pid}").exists()
            agent.reconnect()
            assert gone(pid)
            sshd.resume()

    def test_the_reason_of_a_lost_link_is_told(self, sshd: Sshd) -> None:
        with reach(sshd) as agent:
            with pytest.raises(LinkLost, match=r"Timeout, server \S+ not responding"), agent.stream(TICKS, silence_s=60) as stream:
                for _ in stream:
                    sshd.hang()
            sshd.resume()

    def test_a_link_that_is_gone_is_lost_for_every_method(self, sshd: Sshd) -> None:
        with reach(sshd) as agent:
            sshd.cut()
            with pytest.raises(LinkLost):
                agent.run(["true"], timeout_s=20)
            with pytest.raises(LinkLost):
                agent.store(named(b"data"))
            with pytest.raises(LinkLost):
                agent.clean()

    def test_reconnecting_to_a_host_that_is_away_is_unreachable(self, sshd: Sshd) -> None:
        with reach(sshd) as agent:
            sshd.stop()
            with pytest.raises(DeviceUnreachable):
                agent.reconnect()
            with pytest.raises(LinkLost):
                agent.run(["true"], timeout_s=20)
            sshd.start()
            agent.reconnect()
            assert agent.run(["echo", "one"], timeout_s=20).stdout == "one\n"

    def test_a_stream_on_a_lost_link_ends_on_the_device(self, sshd: Sshd) -> None:
        with reach(sshd) as agent:
            code = python("import os, sys", "print(os.getpid(), flush=True)", "sys.stdin.read()")
            with contextlib.suppress(LinkLost), agent.stream(code, silence_s=60) as stream:
                for line in stream:
                    pid = int(line)
                    sshd.cut()
            assert gone(pid)

    @pytest.mark.parametrize("share", [0.1, 0.9, 1.0])
    def test_a_link_cut_during_a_push_leaves_nothing_half_written(self, sshd: Sshd, share: float) -> None:
        files = named(os.urandom(2_000_000)) | named(os.urandom(2_000_000))
        with Proxy(sshd.port) as link:
            sshd.point_at(link.port)
            with reach(sshd) as agent:
                link.cut_after_bytes = int(share * 4_000_000)
                with pytest.raises((LinkLost, StoreFailed)):
                    agent.store(files)
                agent.reconnect()
                there = Path(agent.store({}))
                assert eventually(lambda: not [*there.glob("incoming-*.tar")])
                assert all(path.read_bytes() == files[path.name] for path in there.glob("*.bin"))
                assert stored(agent, files)

    def test_a_push_that_stalls_is_given_up(self, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
        with reach(sshd) as agent:
            monkeypatch.setattr("device_agents.remote.COMMAND_S", 0.5)
            monkeypatch.setattr(ImpatientSsh, "alive_interval_s", 60)
            agent.reconnect()
            sshd.hang()
            with pytest.raises(LinkLost, match="could not be sent"):
                agent.store(named(os.urandom(10_000)))
            sshd.resume()

    @pytest.mark.parametrize(
        ("program", "instead"),
        [
            ("cat", "exec head -c 5000"),
            ("tar", 'tar() { head -c 5000 "$2" >cut.bin; }; tar "$@"'),
            ("sha256sum", "echo 0000  nothing"),
        ],
    )
    def test_a_damaged_push_is_noticed_and_repeated(self, folder: Path, program: str, instead: str) -> None:
        shims = folder / "shims"
        shims.mkdir()
        shim = SHIM.format(mark=folder / "done", instead=instead, program=shutil.which(program))
        with Sshd(folder / "board", environment={"PATH": f"{shims}:{os.environ['PATH']}"}) as sshd, reach(sshd) as agent:
            (shims / program).write_text(shim)
            (shims / program).chmod(0o755)
            files = named(os.urandom(100_000)) | named(os.urandom(20_000))
            assert stored(agent, files)
            assert (folder / "done").exists()
            assert {path.name for path in Path(agent.store({})).iterdir()} == set(files)

    def test_a_push_that_is_damaged_again_and_again_fails(self, folder: Path) -> None:
        shims = folder / "shims"
        shims.mkdir()
        with Sshd(folder / "board", environment={"PATH": f"{shims}:{os.environ['PATH']}"}) as sshd, reach(sshd) as agent:
            (shims / "cat").write_text("#!/bin/sh\nexec head -c 5000\n")
            (shims / "cat").chmod(0o755)
            with pytest.raises(StoreFailed, match="in 3 attempts"):
                agent.store(named(os.urandom(100_000)))
            assert not list(Path(agent.store({})).iterdir())

    def test_a_full_disk_is_named_and_room_is_left(self, sshd: Sshd, small_disk: Path) -> None:
        with reach(sshd, folder=small_disk) as agent:
            with pytest.raises(StoreFailed, match=r"No space left .*; `profile clean ssh:board` makes room, or .* folder = "):
                agent.store(named(os.urandom(5_000_000)))
            assert stored(agent, named(os.urandom(500_000)))

    def test_a_disk_that_is_full_on_unpacking_is_named(self, sshd: Sshd, small_disk: Path) -> None:
        with reach(sshd, folder=small_disk) as agent:
            with pytest.raises(StoreFailed, match=r"device printed: .*(No space left on device|Wrote only \d+ of)"):
                agent.store(named(os.urandom(1_500_000)))
            assert stored(agent, named(os.urandom(500_000)))

    def test_a_disk_without_room_for_a_folder_is_named_with_the_way_out(self, sshd: Sshd, small_disk: Path) -> None:
        subprocess.run(["mount", "-o", "remount,size=2m,nr_inodes=3", str(small_disk)], check=True)
        told = pytest.raises(StoreFailed, match=r"No space left on device; .* folder = ")
        with reach(sshd, folder=small_disk) as agent, told:
            agent.store(named(b"a") | named(b"b"))

    def test_a_folder_that_may_not_be_written_is_named(self, sshd: Sshd) -> None:
        with pytest.raises(StoreFailed, match=r"no folder for our files.* folder = "), reach(sshd, folder=Path("/proc/nowhere")):
            pass

    @pytest.fixture
    def small_disk(self, folder: Path) -> Iterator[Path]:
        """Two megabytes."""
        disk = folder / "disk"
        disk.mkdir()
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)], capture_output=True, text=True, check=False
        )
        if made.returncode != 0:
            pytest.skip(f"a small disk cannot be mounted here (root may): {made.stderr.strip()}")
        yield disk
        subprocess.run(["umount", str(disk)], check=True)


class TestAddresses:
    @pytest.mark.parametrize(
        ("address", "host", "port"),
        [
            ("ssh:jetson", "jetson", None),
            ("ssh:nano@10.0.0.7", "nano@10.0.0.7", None),
            ("ssh:nano@10.0.0.7:2222", "nano@10.0.0.7", 2222),
            ("ssh:::1", "::1", None),
            ("ssh:nano@[fe80::1%eth0]:22", "nano@fe80::1%eth0", 22),
            ("ssh:me@corp.example@board", "me@corp.example@board", None),
        ],
    )
    def test_a_host_may_be_named_in_these_ways(self, address: str, host: str, port: int | None) -> None:
        assert destination(address) == (host, port)

    @pytest.mark.parametrize(
        "name", ["", "-v", "-oProxyCommand=touch", "-l@host", "me@-host", "[-v]", "a b", "$(x)", "a;b", "me@", "h:0", "h:70000"]
    )
    def test_what_is_an_option_or_no_name_is_refused(self, name: str) -> None:
        with pytest.raises(UnknownDevice, match="names no host"):
            SshAgent(f"ssh:{name}")

    @given(st.text())
    def test_no_text_becomes_an_option_or_a_second_word(self, text: str) -> None:
        with contextlib.suppress(UnknownDevice):
            host, port = destination(f"ssh:{text}")
            assert host
            assert not host.startswith("-") and "@-" not in host[host.rfind("@") :] and not set(host) & set(" \n;|&$`<>\\'\"")
            assert port is None or 0 < port < 65536

    def test_no_board_is_seen_without_being_named(self) -> None:
        assert SshAgent.attached() == []
