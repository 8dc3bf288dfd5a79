"""A runtime for tests of the host, whose models say themselves how they behave (PROTOCOL.md, "The fake runtime")."""

from __future__ import annotations

import json
import math
import os
import signal
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device_agents.on_device.runner.executed import WARM_UP_RUNS, Executed, Inference, Ran
from device_agents.on_device.runner.inputs import random_bits, split, value_of
from device_agents.on_device.runner.runtimes.interface import Opened, Output, Runtime
from device_agents.on_device.runner.system import clock_ns

CODES = {
    "float32": "<f", "float64": "<d", "bool": "<B", "int8": "<b", "int16": "<h", "int32": "<i", "int64": "<q",
    "uint8": "<B", "uint16": "<H", "uint32": "<I", "uint64": "<Q",
}  # fmt: skip
"""How the values of each type lie in a file."""


class Fake(Runtime):
    """No runtime: a model is a JSON file. It is chosen by name only, and its library is the runner itself."""

    package = "json"
    model = "probe.json"
    many_open = True

    def __init__(self, threads: int, folder: Path) -> None:
        self.version, self.library_path = "0", Path(sys.argv[0])
        self.flags = {"simulated": True}

    def open(self, path: Path, seed: int, as_it_is: bool) -> Opened:
        script, behind = _script(path)
        if "error" in script:
            raise RuntimeError(script["error"])
        latency_ns = script["latency_ns"]
        if type(latency_ns) is not int:
            raise ValueError("latency_ns is not a whole number")
        outputs = [self._output(seed, place, given, behind.get(place)) for place, given in enumerate(script.get("inputs", []))]
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

    def executed(self, path: Path, seed: int, as_it_is: bool, inferences: int) -> Executed:
        opened = self.open(path, seed, as_it_is).run_once(finite=False)
        for _ in range(WARM_UP_RUNS + inferences):
            opened.run()
        names = ("name", "op", "partition", "index", "us", "inputs", "outputs")
        ran = [Ran(*(operator[name] for name in names)) for operator in _script(path)[0].get("operators", [])]
        inference = Inference(sum(operator.duration_us for operator in ran), ran)
        return Executed([inference] * inferences, reason=None if ran else "the script has no operators")

    def _output(self, seed: int, place: int, given: dict[str, Any], data: bytes | None) -> Output:
        if data is not None:
            if len(data) != math.prod(given["shape"]) * struct.calcsize(CODES[given["type"]]):
                raise ValueError(f"the file has {len(data)} bytes for input {place}, {given}")
            return Output(given["shape"], given["type"], [value for (value,) in struct.iter_unpack(CODES[given["type"]], data)])
        kind = {"float32": "f", "float64": "f", "bool": "b"}.get(given["type"], "i")
        size = math.prod(given["shape"])
        item_bytes = 4 if given["type"].endswith(("32", "64")) else 1
        values = [value_of(random_bits(seed, place, element), kind, item_bytes) for element in range(1, size + 1)]
        return Output(given["shape"], given["type"], values)


def _script(path: Path) -> tuple[dict[str, Any], Mapping[int, bytes]]:
    """The script, and the values of inputs behind it."""
    script_bytes, behind = split(path)
    return json.loads(path.read_bytes()[:script_bytes]), behind
