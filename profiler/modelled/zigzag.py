"""Costs by ZigZag, a tool that searches for the best mapping of a layer (Mei et al., IEEE Transactions on Computers, 2021).

It runs in a Python of its own (profiler.modelled.zigzag_program), and what it answers is kept in the cache folder, as a layer
takes seconds. It is asked for the mapping of least energy times latency; `[zigzag]` of a description says which loops the rows and
columns of the array may be used for. Zeros save nothing, and moving data from unit to unit costs nothing. Memories on the chip
never limit the speed; waiting for DRAM, for the first inputs and for the last outputs is told apart from computing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from device_agents.support.atomic import write_whole, writing
from device_agents.support.cache import cache_folder
from device_agents.support.dataclass_json import read_as
from device_agents.support.strict_json import read_json
from profiler.errors import EngineError, HardwareError
from profiler.modelled.hardware import Hardware, Loops
from profiler.modelled.work import Assumptions, Costs, Work, mac_pj

VERSION = 1
RELEASE = "3.9.1"
"""Of zigzag-dse. Another may find other mappings, so that it needs another VERSION here."""
PYTHON_VARIABLE = "ZIGZAG_PYTHON"
LEVELS = {"dram": ("dram",), "buffer": ("buffer", "weight_buffer"), "unit": ("unit", "unit_input", "unit_weight", "unit_psum")}
"""The memories of each level that costs are told by."""
OPERANDS = {"I": "I1", "W": "I2", "O": "O"}
"""ZigZag's names of inputs, weights and outputs, in the order of `DATA_TYPES`, and of the ports of memories for them."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What ZigZag says of one layer, for a whole batch."""

    energy_pj: float
    """With everything rounded to accesses of the width of a port."""
    moved_bits: Mapping[str, Mapping[str, float]]
    """Read and written, by operand and memory."""
    cycles: float
    computing_cycles: float
    """Those among them in which nothing waits for memory."""
    active_units: float
    mapping: str


@dataclass(frozen=True, slots=True)
class OnChip:
    """A memory, as ZigZag is told of it."""

    name: str
    words: int
    price: float
    """Of an access to a word, in units of `EnergyCosts.unit_pj`."""
    operands: str
    each_unit: bool = False


def cost(work: Work, hardware: Hardware) -> Costs:
    """The costs at each channel count. `HardwareError` if there is no mapping, `EngineError` if ZigZag is missing or fails."""
    if min(work.assumptions.densities) < 1:
        raise HardwareError(f"{hardware.name}: ZigZag counts every value as one that is not zero; leave the densities out")
    per_bit = hardware.energy.unit_pj / hardware.word_bits
    prices = {memory.name: memory.price * per_bit for memory in (*_on_chip(hardware), _dram(hardware, "IWO"))}
    answers = [_answer(question(work, hardware, place)) for place in range(len(work.macs))]
    data_pj = np.array(
        [
            [
                [sum(each.moved_bits[name].get(memory, 0.0) * prices.get(memory, 0.0) for memory in level) for each in answers]
                for name in OPERANDS
            ]
            for level in LEVELS.values()
        ]
    )
    dram_bytes = np.array([[each.moved_bits[name].get("dram", 0.0) / 8 for each in answers] for name in OPERANDS])
    computing = np.array([each.computing_cycles for each in answers])
    return Costs(
        tuple(LEVELS),
        data_pj,
        work.macs * mac_pj(hardware, work.assumptions),
        computing,
        dram_bytes,
        np.array([each.active_units for each in answers]),
        work.macs,
        answers[0].mapping,
        np.array([each.cycles for each in answers]) - computing,
    )


def question(work: Work, hardware: Hardware, place: int) -> dict[str, Any]:
    """What ZigZag is asked of the layer at one of its channel counts, in ZigZag's own formats."""
    geometry, bits = work.geometry, work.assumptions.bits
    sizes_bits = work.values[:, place] * bits
    kept = hardware.memory.keeps_activations and sizes_bits[0] + sizes_bits[2] <= 8 * hardware.memory.buffer_bytes
    inputs, filters = int(np.ceil(work.inputs[place])), int(np.ceil(work.outputs[place]))
    loops = {
        "B": geometry.batch, "K": filters, "G": int(work.groups[place]), "OX": geometry.out_width, "OY": geometry.out_height,
        "C": inputs, "FX": geometry.kernel_width, "FY": geometry.kernel_height,
    }  # fmt: skip
    padded = (geometry.columns_of(geometry.out_width), geometry.rows_of(geometry.out_height))
    padding = [max(0, whole - own) for whole, own in zip(padded, (geometry.in_width, geometry.in_height), strict=True)]
    spread = hardware.zigzag or Loops()
    layer = {
        "id": 0,
        "name": "layer",
        "operator_type": "Conv",
        "equation": "O[b][g][k][oy][ox]+=W[g][k][c][fy][fx]*I[b][g][c][iy][ix]",
        "operand_source": {"W": 0},  # its own number: nothing computes the weights
        "dimension_relations": [
            f"ix={geometry.stride_width}*ox+{geometry.dilation_width}*fx",
            f"iy={geometry.stride_height}*oy+{geometry.dilation_height}*fy",
        ],
        "loop_dims": list(loops),
        "loop_sizes": list(loops.values()),
        "operand_precision": {"I": bits, "W": bits, "O": bits, "O_final": bits},
        "pr_loop_dims": ["IX", "IY"],
        "pr_loop_sizes": [geometry.in_width, geometry.in_height],
        "padding": [[each // 2, each - each // 2] for each in padding],
    }
    mapping = {
        "name": "default",
        "spatial_mapping_hint": {name: list(some) for name, some in (("D1", spread.rows), ("D2", spread.cols)) if some},
        "memory_operand_links": OPERANDS,
    }
    return {"accelerator": accelerator(hardware, work.assumptions, kept), "layer": layer, "mapping": mapping, "minimise": "EDP"}


def accelerator(hardware: Hardware, assumptions: Assumptions, kept: bool) -> dict[str, Any]:
    """The description in ZigZag's format; `kept` if inputs and outputs of the layer do not pass through DRAM."""
    memories = _on_chip(hardware)
    named = {"I": "inputs", "W": "weights", "O": "outputs"}
    if lacking := [named[letter] for letter in named if not any(letter in memory.operands for memory in memories)]:
        raise HardwareError(
            f"{hardware.name} has no memory on the chip for {' and '.join(lacking)}, which the engine zigzag needs; give it words "
            "of each unit, such as unit_weight_words = 2 below [memory]"
        )
    array, word_bits = hardware.array, hardware.word_bits
    sizes = {"D1": array.rows, "D2": array.cols} | ({"D3": array.macs_per_cycle} if array.macs_per_cycle > 1 else {})
    per_bit = hardware.energy.unit_pj / word_bits
    described: dict[str, Any] = {}
    for memory in (*memories, _dram(hardware, "W" if kept else "IWO")):
        port_bits = word_bits if memory.each_unit else word_bits * hardware.units * array.macs_per_cycle
        ports: list[tuple[str, str]] = []
        for operand in memory.operands:
            for way in ("tl", "th", "fh", "fl") if operand == "O" else ("tl", "fh"):
                ports.append((f"{'r' if way[0] == 't' else 'w'}_port_{len(ports)}", f"{OPERANDS[operand]}, {way}"))
        if memory.name == "dram" and hardware.dram.gb_per_s:  # all share one port there
            port_bits = max(1, round(hardware.dram.gb_per_s * 8e3 / hardware.clock_mhz))
            ports = [("rw_port_0", allocated) for _, allocated in ports]
        described[memory.name] = {
            "size": memory.words * word_bits,
            "r_cost": memory.price * per_bit * port_bits,
            "w_cost": memory.price * per_bit * port_bits,
            "area": 0.0,
            "latency": 1,
            "operands": [OPERANDS[operand] for operand in memory.operands],
            "ports": [
                {
                    "name": name,
                    "type": {"r_": "read", "w_": "write", "rw": "read_write"}[name[:2]],
                    "bandwidth_min": 1,
                    "bandwidth_max": port_bits,
                    "allocation": [allocated for port, allocated in ports if port == name],
                }
                for name in dict.fromkeys(port for port, _ in ports)
            ],
            "served_dimensions": [] if memory.each_unit else list(sizes),
        }
    units = {
        "unit_energy": mac_pj(hardware, assumptions),
        "unit_area": 0.0,
        "dimensions": list(sizes),
        "sizes": list(sizes.values()),
    }
    return {"name": "described", "memories": described, "operational_array": units}


def _on_chip(hardware: Hardware) -> list[OnChip]:
    """From the units outwards, without those of no words.

    To ZigZag, what the units hold lies in the memory behind them too. A weight buffer that is smaller than all units together can
    only pass weights on, and is left out.
    """
    memory, energy = hardware.memory, hardware.energy
    weight_words = memory.weight_buffer_bytes * 8 // hardware.word_bits
    if weight_words < hardware.units * (memory.unit_words or memory.unit_weight_words):
        weight_words = 0
    found = (
        OnChip("unit", memory.unit_words, energy.unit, "IWO", True),
        OnChip("unit_input", memory.unit_input_words, energy.unit, "I", True),
        OnChip("unit_weight", memory.unit_weight_words, energy.unit, "W", True),
        OnChip("unit_psum", memory.unit_psum_words, energy.unit, "O", True),
        OnChip("weight_buffer", weight_words, energy.weight_buffer or energy.buffer, "W"),
        OnChip("buffer", memory.buffer_bytes * 8 // hardware.word_bits, energy.buffer, "IO"),
    )
    return [each for each in found if each.words]


def _dram(hardware: Hardware, operands: str) -> OnChip:
    return OnChip("dram", 1 << 40, hardware.energy.dram, operands)


def _answer(asked: Mapping[str, Any]) -> Answer:
    """From the cache, or else from ZigZag."""
    line = json.dumps(asked)  # in this order: ZigZag takes memories to be named from the units outwards
    path = cache_folder() / f"zigzag-{RELEASE}" / f"{hashlib.sha256(line.encode()).hexdigest()}.json"
    if path.exists():
        try:
            return read_as(Answer, read_json(path.read_bytes()))
        except (OSError, ValueError) as exc:
            raise EngineError(f"{path} is damaged: {exc}; remove it") from exc
    said = _PROGRAM.ask(line)
    if "error" in said:
        raise HardwareError(f"ZigZag finds no mapping: {said['error']}")
    try:
        answer = read_as(Answer, said)
    except ValueError as exc:
        raise EngineError(f"ZigZag's answer cannot be understood: {exc}") from exc
    with writing(path.parent, EngineError):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(asdict(answer)), EngineError)
    return answer


class _Program:
    """The process that ZigZag runs in, started when it is first needed. It ends with ours, at the end of its standard input."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None

    def ask(self, line: str) -> Mapping[str, Any]:
        """The answer to one line. `EngineError` if the program cannot be started, or ends instead of answering."""
        with self._lock:
            try:
                process = self._process or self._start()
                return self._say(process, line)
            except BaseException:  # Ctrl-C too: an answer that comes later would be taken for that of the next layer
                self.close()
                raise

    def close(self) -> None:
        """End the process, if there is one. The next question starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _start(self) -> subprocess.Popen[str]:
        own = cache_folder() / "zigzag"
        python = os.environ.get(PYTHON_VARIABLE) or str(own / "bin" / "python")
        advice = (
            f"install ZigZag into an environment of its own with `python3 -m venv {own} && {own}/bin/pip install "
            f"zigzag-dse=={RELEASE} six`, or set {PYTHON_VARIABLE} to the Python of one that has it"
        )
        # sets of strings are walked in the same order each time, so that the same mapping is found each time
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {"PYTHONHASHSEED": "0"}
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        try:
            self._process = process = subprocess.Popen(
                [python, "-P", str(Path(__file__).with_name("zigzag_program.py"))],  # -P: our modules are none of its
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment, encoding="utf-8",
            )  # fmt: skip
        except OSError as exc:
            raise EngineError(f"the engine zigzag cannot start {python}: {exc.strerror}; {advice}") from exc
        try:
            release = self._say(process, "").get("zigzag")
        except EngineError as exc:
            raise EngineError(f"{exc}; {advice}") from exc
        if release != RELEASE:
            raise EngineError(f"{python} has ZigZag {release}, and the engine zigzag needs {RELEASE}; {advice}")
        return process

    def _say(self, process: subprocess.Popen[str], line: str) -> dict[str, Any]:
        assert process.stdin is not None and process.stdout is not None and self._errors is not None
        if line:
            with contextlib.suppress(BrokenPipeError):  # it has ended, and its last words say why
                process.stdin.write(f"{line}\n")
                process.stdin.flush()
        said = process.stdout.readline()
        try:
            answer = read_json(said)
            if isinstance(answer, dict):
                return answer
        except ValueError:
            pass
        process.kill()
        process.wait()  # for its last words
        self._errors.seek(0)
        last = [words for words in self._errors.read().splitlines() if words.strip()][-1:]
        raise EngineError(f"ZigZag ended without an answer: {(last or [said.strip() or 'it said nothing'])[0]}")


_PROGRAM = _Program()
