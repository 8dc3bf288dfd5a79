"""Our runner in C, for devices without Python: it is sent there with the shared library of the runtime."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import ClassVar

from device_agents import native
from device_agents.agent import named_by_content
from profiler.errors import RunnerError
from profiler.runners.program import Program, ProgramRunner
from profiler.runtimes import RUNTIMES

WHEELS = {runtime.name: runtime.wheel for runtime in RUNTIMES.values() if runtime.wheel}
"""Where the libraries are in packages installed here, which serve this very machine."""
ABIS = {"arm64-v8a": "android-arm64"}
MACHINES = {"x86_64": "host", "aarch64": "aarch64-linux"}


class NativeRunner(ProgramRunner):
    name: ClassVar[str] = "native"

    def _make(self) -> Program:
        return self._with(self._libraries())

    def _make_probe(self) -> Program:
        """With every runtime's library, for it to say which of them work."""
        named = [path for paths in self._device.libraries.values() for path in paths]
        here = filter(None, map(_installed_here, WHEELS)) if self._agent.address == "local" and not named else ()
        return self._with((*named, *here))

    def _with(self, libraries: tuple[Path, ...]) -> Program:
        program = self._device.native or native.cached(self._build_target()).path
        paths = [program, *libraries]
        contents = [_read(path) for path in paths]
        names = [named_by_content(path, data) for path, data in zip(paths, contents, strict=True)]
        return Program(dict(zip(names, contents, strict=True)), [f"{{folder}}/{names[0]}"], names[1:])

    def _build_target(self) -> str:
        """`RunnerError` for a device we cannot build for."""
        abi = self._agent.run(["sh", "-c", "getprop ro.product.cpu.abi 2>/dev/null; uname -m"], timeout_s=30).check().stdout.split()
        for word in abi:
            if word in ABIS:
                return ABIS[word]
        machine = abi[-1] if abi else "unknown"
        if machine not in MACHINES or (machine == "aarch64" and len(abi) > 1):
            raise RunnerError(
                f"{self._agent.address} is a {' '.join(abi) or 'machine of unknown kind'}, for which no runner is built; "
                "build one with your compiler from device_agents/on_device and name it as native = PATH in profile.toml"
            )
        return MACHINES[machine]

    def _libraries(self) -> tuple[Path, ...]:
        runtime = self._target.runtime
        if runtime == "fake":
            return ()
        if runtime in self._device.libraries:
            return self._device.libraries[runtime]
        if self._agent.address == "local" and (found := _installed_here(runtime)):
            return (found,)
        raise RunnerError(
            f"the native runner needs the {runtime} library for {self._device.name}: take it from the runtime's AAR or wheel and "
            f'name it in profile.toml, under [devices.{self._device.name}], as libraries.{runtime} = "PATH"'
        )


def _installed_here(runtime: str) -> Path | None:
    package, pattern = WHEELS.get(runtime, ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    folders = spec.submodule_search_locations if spec else None
    found = [path for folder in folders or () for path in sorted(Path(folder).glob(pattern))]
    return found[-1] if found else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise RunnerError(f"{path}, which the native runner needs, cannot be read: {exc.strerror or exc}") from exc
