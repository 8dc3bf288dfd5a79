"""Devices made up for tests: a folder that stands for a root, programs that answer for its services, any shell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from device_agents.agent import CommandResult
from device_agents.local import LocalAgent

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


def tree(folder: Path, files: Mapping[str, str]) -> str:
    for name, text in files.items():
        path = folder / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


def program(folder: Path, name: str, body: str) -> None:
    """A program for the device, a script of the shell."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


class Device(LocalAgent):
    """This machine with other programs in front, and, where one is given, another shell."""

    def __init__(self, programs: Path | None = None, shell: Sequence[str] = ("sh",)) -> None:
        super().__init__()
        self._programs, self._shell = programs, shell
        self.asked: list[Sequence[str]] = []

    def run(self, argv: Sequence[str], *, timeout_s: float) -> CommandResult:
        self.asked.append(argv)
        path = ["env", f"PATH={self._programs}:/usr/bin:/bin"] if self._programs is not None else []
        command = [*self._shell, *argv[1:]] if argv[0] == "sh" else argv
        return super().run([*path, *command], timeout_s=timeout_s)
