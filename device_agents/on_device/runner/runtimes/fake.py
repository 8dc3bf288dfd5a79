"""A runtime for tests of the host, whose models say themselves how they behave (PROTOCOL.md, "The fake runtime")."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from device_agents.on_device.runner.inputs import random_bits, value_of
from device_agents.on_device.runner.runtimes.interface import Opened, Output, Runtime
from device_agents.on_device.runner.system import clock_ns


class Fake(Runtime):
    """No runtime: a model is a JSON file. It is chosen by name only, and its library is the runner itself."""

    package = "json"
    model = "probe.json"
    many_open = True

    def __init__(self, threads: int, folder: Path) -> None:
        self.version, self.library_path = "0", Path(sys.argv[0])
        self.flags = {"simulated": True}

    def open(self, path: Path, seed: int) -> Opened:
        script = json.loads(Path(path).read_text())
        if "error" in script:
            raise RuntimeError(script["error"])
        latency_ns = script["latency_ns"]
        if type(latency_ns) is not int:
            raise ValueError("latency_ns is not a whole number")
        outputs = [self._output(seed, place, given) for place, given in enumerate(script.get("inputs", []))]
        if script.get("nan"):
            outputs.append(Output([1], "float32", [math.nan]))

        def run() -> None:
            if script.get("crash"):
                os.kill(os.getpid(), signal.SIGSEGV)
            if script.get("hang"):
                time.sleep(1e6)
            until = clock_ns() + latency_ns
            while clock_ns() < until:
                pass

        return Opened(run, lambda: outputs)

    def _output(self, seed: int, place: int, given: dict[str, Any]) -> Output:
        kind = {"float32": "f", "float64": "f", "bool": "b"}.get(given["type"], "i")
        size = math.prod(given["shape"])
        values = [value_of(random_bits(seed, place, element), kind) for element in range(1, size + 1)]
        return Output(given["shape"], given["type"], values)
