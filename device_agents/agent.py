"""What a device must be able to do: run a command, stream its output, and store files. Agents know nothing of layers.

A new kind of device is one file with a class like LocalAgent and one line in device_agents/discovery.py. If it offers a POSIX
shell, the class extends RemoteAgent (device_agents/remote.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from device_agents.errors import CommandFailed
from device_agents.support.text import last_line

LONGEST_NAME = 60
LONGEST_LINE = 32 << 20
"""Bytes of a line of a command's output; no line of a runner comes near it."""


def named(argv: Sequence[str]) -> str:
    """A command's first words, for messages. Only the first line of a script is shown, and at most LONGEST_NAME characters."""
    words = " ".join(argv[:3]).splitlines() or [""]
    return words[0] if len(words) == 1 and len(words[0]) <= LONGEST_NAME else f"{words[0][:LONGEST_NAME]}..."


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended. Failing is a result until someone checks it."""

    argv: tuple[str, ...]
    returncode: int
    """The exit code; if negative, the number of the signal that killed the command."""
    stdout: str
    stderr: str

    def check(self) -> Self:
        """This result. `CommandFailed`, with the last line of standard error, if the exit code is not 0."""
        if self.returncode != 0:
            raise CommandFailed(f"`{named(self.argv)}` ended with code {self.returncode}: {last_line(self.stderr)}")
        return self


class Stream(Protocol):
    """The output of a running command, line by line. `returncode` and `stderr` are complete once the lines have ended."""

    def __iter__(self) -> Iterator[str]: ...

    def tell(self, data: bytes) -> None:
        """Write to the command's standard input. Never fails: if the command has ended, reading its output will show why."""
        ...

    @property
    def returncode(self) -> int | None: ...

    @property
    def stderr(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of a device besides its address."""

    folder: str | None = None
    """The folder on the device in which files are stored; None for the agent's default."""
    ssh_config: str | None = None
    """A configuration file for `ssh -F`; None for the user's own."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A device that was found without being named."""

    address: str
    description: str
    obstacle: str | None = None
    """Why it cannot be used now, and what to do about it; None if it can."""


class Agent(Protocol):
    """Access to one device. It is a context manager: entering it connects, leaving it disconnects.

    Entering raises `DeviceUnreachable` or `DeviceUnauthorised`. Any method raises `LinkLost` once the connection is lost, after
    which `reconnect` may help.
    """

    address: str
    shared: bool
    """Several processes may use it at once, because nothing is measured there: it needs no lock."""
    has_conditions: bool
    """There is hardware whose temperature and clocks matter: it can be conditioned before measuring, and may have to cool down."""
    runner: str | None
    """The runner that its kind of device comes with (profiler/runners/); None where any can be used, as on real devices."""

    def run(self, argv: Sequence[str], *, timeout_s: float) -> CommandResult:
        """Run a command to its end. After `timeout_s` seconds it is killed with its children: `CommandTimedOut`."""
        ...

    def stream(self, argv: Sequence[str], *, silence_s: float) -> AbstractContextManager[Stream]:
        """Start a command and read its lines as they come, its standard input held open. Leaving kills it and its children.

        `CommandTimedOut` after `silence_s` seconds without a line.
        """
        ...

    def store(self, files: Mapping[str, bytes]) -> str:
        """Store files, executable, in our folder on the device, and return that folder's path on the device.

        A file whose name is there already is not sent again, so names must contain a hash of the content. What is sent
        is verified on the device by sha256, and sent again if it was damaged. `StoreFailed` if that does not help.
        """
        ...

    def interpreter(self) -> str:
        """The device's default Python interpreter. `DeviceError` if there is none."""
        ...

    def reconnect(self) -> None:
        """Close what is left of the connection and connect again. `DeviceUnreachable` if that is not possible now."""
        ...

    def clean(self) -> int:
        """Remove everything that was ever stored on the device; returns the number of bytes removed."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def store_file(agent: Agent, path: Path) -> str:
    """Store a file of this host on the device; returns its path there. Errors are those of `Agent.store`."""
    data = path.read_bytes()
    name = named_by_content(path, data)
    return f"{agent.store({name: data})}/{name}"


def named_by_content(path: Path, data: bytes) -> str:
    """The name of a file in a device's store, which takes equal names for equal files: it contains a hash of the content."""
    return f"{path.stem}-{hashlib.sha256(data).hexdigest()[:16]}{path.suffix}"


class AgentKind(Protocol):
    """What the registry knows of a kind of device before one is opened: a class of agents, or an object that chooses a class."""

    shared: bool
    has_conditions: bool
    address_forms: tuple[str, ...]
    """How addresses of this kind are written, for help texts: ("ssh:HOST",). Empty for devices that are not real."""

    def __call__(self, address: str, options: Options) -> Agent:
        """An agent, not yet connected. `DeviceError` if the address makes no sense."""
        ...

    def attached(self) -> Sequence[Attached]:
        """Devices of this kind that can be seen without being named."""
        ...
