"""Our runner in Python, for devices that have an interpreter with the runtime installed."""

from __future__ import annotations

from typing import ClassVar

from device_agents.agent import named_by_content
from device_agents.discovery import RUNNER
from profiler.runners.program import Program, ProgramRunner


class PythonRunner(ProgramRunner):
    name: ClassVar[str] = "python"

    def _make(self) -> Program:
        data = RUNNER.read_bytes()
        name = named_by_content(RUNNER, data)
        python = self._target.python or self._device.python or self._agent.interpreter()
        return Program({name: data}, [python, f"{{folder}}/{name}"])
