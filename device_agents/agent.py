"""What a device must be able to do: run a command, stream its output, and store files. Agents know nothing of layers.

A new kind of device is one file with a class like LocalAgent and one line in device_agents/discovery.py. If it offers a POSIX
shell, the class extends RemoteAgent (device_agents/remote.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from device_agents.errors import CommandFailed

LONGEST_NAME = 60
LONGEST_LINE = 32 << 20
"""Of a command's output: no line of a runner comes near it."""


def named(argv: Sequence[str]) -> str:
    """A command's first words, for messages; a script among them is cut short."""
    words = " ".join(argv[:3]).splitlines() or [""]
    return words[0] if len(words) == 1 and len(words[0]) <= LONGEST_NAME else f"{words[0][:LONGEST_NAME]}..."


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended. Failing is a result until someone checks it."""

    argv: tuple[str, ...]
    returncode: int
    """Negative: the number of the signal that killed it."""
    stdout: str
    stderr: str

    def check(self) -> Self:
        """`CommandFailed`, with the last line it wrote to standard error, unless it ended with 0."""
        if self.returncode != 0:
            said = self.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            raise CommandFailed(f"`{named(self.argv)}` ended with code {self.returncode}: {said[0]}")
        return self


class Stream(Protocol):
    """A running command, read line by line; `returncode` and `stderr` are known once the lines have ended."""

    def __iter__(self) -> Iterator[str]: ...

    def tell(self, data: bytes) -> None:
        """Write to its standard input. If that cannot be done any more, reading will show why."""
        ...

    @property
    def returncode(self) -> int | None: ...

    @property
    def stderr(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may say about a device beside its address."""

    folder: str | None = None
    """Where on the device files go; None for the agent's own choice."""
    ssh_config: str | None = None
    """A file for `ssh -F`; None for the user's own."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A device that an agent can see without being told of it."""

    address: str
    description: str
    obstacle: str | None = None
    """What stands in the way of using it, and what to do; None if nothing does."""


class Agent(Protocol):
    """A device within reach. Used as a context manager: entering it connects.

    `DeviceUnreachable` or `DeviceUnauthorised` on entering; `LinkLost` from any method once the connection has broken off, after
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
        """Run to the end. `CommandTimedOut` after `timeout_s`, the process and its children killed."""
        ...

    def stream(self, argv: Sequence[str], *, silence_s: float) -> AbstractContextManager[Stream]:
        """Start and read lines as they come, standard input held open meanwhile.

        `CommandTimedOut` after `silence_s` without one; leaving kills it and its children.
        """
        ...

    def store(self, files: Mapping[str, bytes]) -> str:
        """Put files, executable, into our folder on the device, skipping those already there; the folder's path there.

        The name must say the content (a hash), for equal names are taken for equal files. What is sent is verified there by sha256
        and sent again where it arrived damaged. `StoreFailed` if that does not help.
        """
        ...

    def interpreter(self) -> str:
        """The Python to run the runner with, where nobody named one. `DeviceError` if there is none."""
        ...

    def reconnect(self) -> None:
        """Drop what is left of the connection and make it anew. `DeviceUnreachable` if that does not work now."""
        ...

    def clean(self) -> int:
        """Remove everything that was ever stored on the device; how many bytes that was."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


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
