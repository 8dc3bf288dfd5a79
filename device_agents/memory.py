"""What only stands for a device, such as `fake:` and `replay:`: stored files stay in this process, and no command runs.

The agent names the runner that measures there, which is part of this process too (profiler/runners/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import NoReturn, Self

from device_agents.agent import Attached, CommandResult, Options, Stream, named
from device_agents.errors import DeviceError

FOLDER = "/in-memory"


class MemoryAgent:
    """Files in memory, by name; they last until the agent is left or cleaned."""

    shared = True
    has_conditions = False
    runner: str | None = None
    address_forms: tuple[str, ...] = ()
    what = "only the memory of this process"
    """What this is instead of a device, for errors."""

    def __init__(self, address: str, options: Options | None = None) -> None:
        self.address = address
        self.files: dict[str, bytes] = {}

    @classmethod
    def attached(cls) -> Sequence[Attached]:
        """None: these are opened by name only."""
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.files.clear()

    def reconnect(self) -> None:
        """There is no connection that could break."""

    def store(self, files: Mapping[str, bytes]) -> str:
        self.files = {**files, **self.files}
        return FOLDER

    def clean(self) -> int:
        size_bytes = sum(map(len, self.files.values()))
        self.files.clear()
        return size_bytes

    def interpreter(self) -> str:
        raise DeviceError(f"{self.address} is {self.what}: it has no Python, only the {self.runner} runner")

    def run(self, argv: Sequence[str], *, timeout_s: float) -> CommandResult:
        self._refuse(argv)

    def stream(self, argv: Sequence[str], *, silence_s: float) -> AbstractContextManager[Stream]:
        self._refuse(argv)

    def _refuse(self, argv: Sequence[str]) -> NoReturn:
        raise DeviceError(f"{self.address} is {self.what}: `{named(argv)}` cannot be run there, only the {self.runner} runner")
