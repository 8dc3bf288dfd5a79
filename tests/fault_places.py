"""Devices for the fault harness: simulated, this machine, OpenSSH's server on loopback, a phone's daemon behind Google's adb."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from types import TracebackType
from typing import ClassVar, Self

from adb_program import adb, adb_environment, connect
from adbd import Adbd
from fault_programs import GARBAGE, set_faults, write_programs
from graphs import mobilenet_v1
from sshd import Sshd

from profiler.tables.plan import make_plan, write_plan

HOST_FAULTS = ("kill", "term", "hup", "two builds")
FILE_FAULTS = ("file operation", "disk full", "clock jump")
RUNNER_FAULTS = ("runner killed", "runner hangs", "poison", "garbage")
SCRIPT = 'seed = 1\n[runtimes]\nlitert = "2.3.0"\n[latency]\nus_per_kilobyte = 20\n'
SCRIPTED = {
    "crash": 'kind = "crash"', "hang": 'kind = "hang"', "link lost": 'kind = "link_lost"\nreconnects = 0',
    "reboot": 'kind = "reboot"\nreconnects = 0', "out of memory": 'kind = "out_of_memory"', "garbage": 'kind = "garbage"',
}  # fmt: skip


class Place:
    """A folder with a plan, a profile.toml with the device `phone`, and what belongs to that device."""

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    address: str
    network = mobilenet_v1(0.25, 16, classes=10, pairs=2)

    def __init__(self, folder: Path) -> None:
        self.folder, self.environment = folder, dict[str, str]()
        self.stack = ExitStack()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        write_programs(self.folder)
        write_plan(make_plan(self.network), self.folder / "plan.json")
        (self.folder / "device").mkdir()
        self.environment |= {"XDG_CACHE_HOME": str(self.folder / "cache"), "TMPDIR": str(self.folder / "device")}
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stack.close()

    def open(self) -> None:
        raise NotImplementedError

    def name_device(self, address: str, *more: str) -> None:
        self.address = address
        lines = ["[devices.phone]", f'address = "{address}"', *more]
        (self.folder / "profile.toml").write_text("\n".join(lines) + "\n")

    def arm(self, kind: str, chance: Random, models: list[str]) -> None:
        """Before a process is started that is to meet a fault which its device brings about by itself."""
        if kind == "poison":
            set_faults(self.folder, {"poison": chance.choice(models)})
        elif kind == "garbage":
            set_faults(self.folder, {"garbage": chance.choice(GARBAGE), "garbage_at": chance.randint(1, 25)})

    def disarm(self) -> None:
        (self.folder / "faults.json").unlink(missing_ok=True)

    def strike(self, kind: str) -> bool:
        """While the process runs: what befalls the device; whether there was anything that it could befall."""
        try:
            os.kill(self.runners()[-1], signal.SIGKILL if kind == "runner killed" else signal.SIGSTOP)
        except ProcessLookupError:
            return False
        return True

    def runners(self) -> list[int]:
        """The process ids of those that were ever started, in their order."""
        return [int(str(line["pid"])) for line in self.said() if line["event"] == "hello"]

    def said(self) -> list[dict[str, object]]:
        """What all runners so far have said, before any of it was spoilt or lost."""
        tap = self.folder / "tap"
        lines = tap.read_text().rpartition("\n")[0].splitlines() if tap.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]


class Simulated(Place):
    name = "fake"
    kinds = ("kill", "term", "hup", "two builds", *FILE_FAULTS, *SCRIPTED, "poison")
    network = mobilenet_v1(0.5, 16, classes=10, pairs=3)

    def open(self) -> None:
        (self.folder / "script.toml").write_text(SCRIPT)
        self.name_device(f"fake:{self.folder}/script.toml")

    def arm(self, kind: str, chance: Random, models: list[str]) -> None:
        at = chance.randint(1, 150)
        text = SCRIPTED.get("crash" if kind == "poison" else kind)
        measurements = (at, at + 1) if kind == "poison" else (at,)  # the model that was running is the first to run again
        faults = [f"[[fault]]\nmeasurement = {measurement}\n{text}\n" for measurement in measurements if text]
        (self.folder / "script.toml").write_text(SCRIPT + "".join(faults))

    def disarm(self) -> None:
        (self.folder / "script.toml").write_text(SCRIPT)


class Local(Place):
    name = "local"
    kinds = (*HOST_FAULTS, *RUNNER_FAULTS)

    def open(self) -> None:
        self.name_device("local", f'python = "{self.folder}/python"')


class OverSsh(Place):
    name = "ssh"
    kinds = ("kill", "term", "hup", "link cut", *RUNNER_FAULTS)

    def open(self) -> None:
        self.sshd = self.stack.enter_context(Sshd(self.folder / "sshd"))
        there = f'folder = "{self.folder}/device"', f'python = "{self.folder}/python"'
        self.name_device("ssh:board", f'ssh_config = "{self.sshd.config}"', *there)

    def strike(self, kind: str) -> bool:
        if kind != "link cut":
            return super().strike(kind)
        self.sshd.cut()
        return True


class OverAdb(Place):
    name = "adb"
    kinds = ("kill", "term", "hup", "link cut", "server killed", "reboot", *RUNNER_FAULTS)

    def open(self) -> None:
        self.environment |= self.stack.enter_context(adb_environment(self.folder / "home"))
        self.environment["PATH"] = os.environ["PATH"]
        self.phone = self.stack.enter_context(Adbd())
        serial = f"{self.phone.host}:{self.phone.port}"
        connect(self.environment, serial)
        self.name_device(f"adb:{serial}", f'folder = "{self.folder}/device"', f'python = "{self.folder}/python"')

    def strike(self, kind: str) -> bool:
        match kind:
            case "link cut":
                self.phone.cut()
            case "server killed":
                adb(self.environment, "kill-server")
            case "reboot":
                self._reboot()
            case _:
                return super().strike(kind)
        return True

    def _reboot(self) -> None:
        """Whatever runs there ends, and what was in its folder for temporary files is gone when it is back."""
        self.phone.cut()
        for pid in [*self.phone.processes]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        time.sleep(0.2)
        shutil.rmtree(self.folder / "device")
        (self.folder / "device").mkdir()


PLACES: dict[str, type[Place]] = {place.name: place for place in (Simulated, Local, OverSsh, OverAdb)}


def processes_of(folder: Path) -> Iterator[tuple[int, str]]:
    """Those of a trial, by what their command lines name: hosts, runners and the ssh between them, but no servers of the test's."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            state = (path / "stat").read_text().rpartition(") ")[2][:1]
            server = "sshd" in words.split(" ")[0] or "fork-server" in words
            if str(folder) in words and not server and state != "Z":
                yield int(path.name), words
