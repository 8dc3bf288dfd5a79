"""A runner that is a program of ours on the device: it is given a job file and answers with lines (on_device/PROTOCOL.md)."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, get_args

from device_agents.agent import Agent
from device_agents.errors import ANOTHER_FOLDER, CommandTimedOut, DeviceBusy, LineTooLong
from device_agents.remote import OUR_FOLDER
from profiler.devices.config import Device
from profiler.errors import RunnerError
from profiler.formats.model_file import FORMATS
from profiler.layers.graph import Graph
from profiler.layers.layer import conv2d
from profiler.protocol.events import Busy, Crashed, Done, Probe, Result, RunEvent, RunnerEvent
from profiler.protocol.job import Job
from profiler.protocol.lines import parse_line
from profiler.protocol.settings import Target

PROBE_S = 120.0
RESULTS = get_args(Result)
"""Events that a runner waits to be recorded."""


class Runner(Protocol):
    """What measures on a device."""

    name: ClassVar[str]
    tells_executed: ClassVar[bool]
    """True if it can ask the runtime what it executes, and leave models as they are."""

    def __init__(self, agent: Agent, device: Device, target: Target) -> None: ...

    def probe(self) -> Probe:
        """Ask what the device is and which runtimes work there. `RunnerError` if it does not answer."""
        ...

    def run(self, job: Job) -> Iterator[RunEvent]:
        """Start a process for the job and pass on its events; the last one is `Crashed` if it did not come to its end.

        An event has been recorded when the next one is asked for. `DeviceBusy` if another host measures there.
        """
        ...


@dataclass(frozen=True, slots=True)
class Program:
    """What is sent, and how it is started."""

    files: Mapping[str, bytes]
    argv: Sequence[str]
    """`{folder}` stands for where the files are on the device."""
    libraries: Sequence[str] = ()
    """Names of those of the files that are shared libraries, in the order of opening."""

    def command(self, folder: str, *more: str) -> list[str]:
        return [part.replace("{folder}", folder) for part in self.argv] + list(more)


class ProgramRunner(ABC):
    """The part that does not depend on the language the program is written in."""

    name: ClassVar[str]
    tells_executed: ClassVar[bool] = True

    def __init__(self, agent: Agent, device: Device, target: Target) -> None:
        self._agent, self._device, self._target = agent, device, target
        self._made: Program | None = None

    @abstractmethod
    def _make(self) -> Program:
        """`RunnerError` or `DeviceError` if it cannot run on this device."""

    @property
    def _program(self) -> Program:
        if self._made is None:
            self._made = self._make()
        return self._made

    def _make_probe(self) -> Program:
        """The same, with all there is to be asked about."""
        return self._program

    def probe(self) -> Probe:
        program, models = self._make_probe(), probe_models()
        folder = self._agent.store({**program.files, **models})
        more = ["--libraries", *(f"{folder}/{name}" for name in program.libraries)] if program.libraries else []
        result = self._agent.run(program.command(folder, "--probe", folder, *more), timeout_s=PROBE_S)
        for event in map(parse_line, result.stdout.splitlines()):
            if isinstance(event, Probe):
                return event
        raise RunnerError(
            f"the runner on {self._agent.address} did not answer: {self._how_it_ended(result.returncode, result.stderr)}"
        )

    def run(self, job: Job) -> Iterator[RunEvent]:
        program = self._program
        folder = self._agent.store(program.files)
        placed = job.placed(f"{folder}/lease", [f"{folder}/{name}" for name in program.libraries])
        text = json.dumps(placed.to_dict()).encode()
        name = f"{hashlib.sha256(text).hexdigest()[:16]}.json"
        self._agent.store({name: text})
        silence_s = longest_silence_s(job)
        with self._agent.stream(program.command(folder, f"{folder}/{name}"), silence_s=silence_s) as stream:
            ended = False
            try:
                for event in _events(stream, silence_s):
                    if isinstance(event, Busy):
                        raise DeviceBusy(
                            f"{self._agent.address} is measured by another host ({event.holder or 'unknown'}); wait for it"
                        )
                    ended = isinstance(event, Done)
                    yield event
                    if isinstance(event, RESULTS):  # whoever asks for the next event has recorded this one
                        stream.tell(b".")
            except (CommandTimedOut, LineTooLong) as exc:
                yield Crashed(str(exc))
                return
            if not ended:
                yield Crashed(self._how_it_ended(stream.returncode, stream.stderr))

    def _how_it_ended(self, returncode: int | None, stderr: str) -> str:
        """In words, of a process that did not come to its end; the device may be asked more."""
        return how_it_ended(returncode, stderr)


def _events(lines: Iterable[str], silence_s: float) -> Iterator[RunnerEvent]:
    """The events in a runner's output. `CommandTimedOut` for a runner that prints on and on, but no event for `silence_s`."""
    heard_s = time.monotonic()
    for line in lines:
        if (event := parse_line(line)) is not None:
            yield event
            heard_s = time.monotonic()
        elif time.monotonic() - heard_s > silence_s:
            raise CommandTimedOut(f"the runner said nothing that makes sense for {silence_s:g} s; it was killed")


def longest_silence_s(job: Job) -> float:
    """Seconds without an event after which the host takes a runner for dead.

    The runner's own alarm comes first: it also works when the host cannot kill.
    """
    return 1.5 * job.settings.silence_s + 5


def probe_models() -> dict[str, bytes]:
    """A tiny model in each format, for a runtime to show that it runs and not only that it can be loaded."""
    graph = Graph.of_layer(conv2d((1, 8, 8, 4), 4, 3))
    return {f"probe.{suffix}": FORMATS[suffix].write(graph) for suffix in ("onnx", "tflite")}


def how_it_ended(returncode: int | None, stderr: str) -> str:
    """In words, of a runner that did not come to its end."""
    if returncode == -signal.SIGALRM:
        return "one model kept the runner for too long; it was killed"
    if returncode == -signal.SIGKILL:
        return "the runner was killed by SIGKILL, most likely because the device ran out of memory"
    if returncode is not None and returncode < 0:
        return f"the runner was killed by {signal.Signals(-returncode).name}"
    said = [line for line in stderr.strip().splitlines() if line.strip()]
    if said and said[-1].startswith("ModuleNotFoundError"):
        missing = said[-1].partition(": ")[2]
        return f"the Python there has no such runtime ({missing}); install it there, or name another interpreter with --python"
    last = said[-1] if said else "it said nothing"
    ended = f"the runner ended with code {returncode}: {last}"
    if any("No space left" in line or "quota exceeded" in line for line in said):
        return f"{ended}; `profile clean` makes room on the device, or {ANOTHER_FOLDER}"
    if not any(OUR_FOLDER in line for line in said):
        return f"{ended}; name another program with --python" if returncode in (126, 127) else ended
    # dash and BusyBox take what the kernel does not execute for a script and name its lines. An "&" among its bytes starts
    # two commands at once, whose words mix, so that the last line need not be a whole one.
    if re.search(rf"exec format|not executable|cannot execute binary|{OUR_FOLDER}/\S+: (line )?[0-9]+: ", stderr, re.IGNORECASE):
        return f'{ended}; it was built for another processor: name one for this device as native = "PATH" in profile.toml'
    if returncode not in (126, 127):
        return ended
    if re.search("not found|No such file", last):
        return f'{ended}; its loader is not there: name one built for this system as native = "PATH" in profile.toml'
    return f"{ended}; the folder is most likely mounted noexec: {ANOTHER_FOLDER}"
