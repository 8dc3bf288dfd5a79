"""Our runner in Python, for devices that have an interpreter with the runtime installed."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from device_agents import python_runner
from device_agents.agent import named_by_content
from profiler.devices.interpreter import too_old
from profiler.runners.program import Program, ProgramRunner


class PythonRunner(ProgramRunner):
    name: ClassVar[str] = "python"

    def _make(self) -> Program:
        data = python_runner.packed()
        name = named_by_content(Path(python_runner.NAME), data)
        return Program({name: data}, [self._python(), f"{{folder}}/{name}"])

    def _python(self) -> str:
        return self._target.python or self._device.python or self._agent.interpreter()

    def _how_it_ended(self, returncode: int | None, stderr: str) -> str:
        old = too_old(self._agent, self._python()) if "SyntaxError" in stderr else None
        return old or super()._how_it_ended(returncode, stderr)
