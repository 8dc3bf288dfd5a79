"""Every reader of what comes from outside, with a valid example of what it reads: for tests/test_outside.py and benchmarks/fuzz.py.

A reader is given a file with any bytes in it. It may take them, and then what it read is used as a command would; or it raises one
of its own errors, whose text is one printable sentence. Anything else is a fault of ours.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import pickle
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from device_agents.support.errors import ToolError

LONGEST_SENTENCE = 2000
Make = Callable[[], bytes]


@dataclass(frozen=True)
class Reader:
    """One kind of file, or of what a device says."""

    name: str
    file: str
    """What such a file is called."""
    form: str
    """json, lines (of JSON), toml, yaml, text or bytes: what a change of its structure is."""
    example: Make
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...] = (ToolError,)
    needs: str = ""
    """A package that is not everywhere."""


class Fault(AssertionError):
    """A reader let an exception through that is none of its own, or put it in words that cannot be printed."""


READERS: dict[str, Reader] = {}


def reader(
    name: str, file: str, form: str, example: Make, *errors: type[Exception], needs: str = ""
) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    def listed(read: Callable[[Path], object]) -> Callable[[Path], object]:
        READERS[name] = Reader(name, file, form, cache(example), read, errors or (ToolError,), needs)
        return read

    return listed


def attempt(found: Reader, data: bytes, folder: Path) -> None:
    """`Fault`, with the exception as its cause, if the reader meets these bytes in another way than it may."""
    path = folder / found.file
    path.write_bytes(data)
    try:
        found.read(path)
    except found.errors as exc:
        said = str(exc)
        if not said or len(said) > LONGEST_SENTENCE or not said.isprintable():
            raise Fault(f"{found.name}: {type(exc).__name__} in words that are no sentence: {said[:300]!r}") from exc
    except Exception as exc:
        raise Fault(f"{found.name}: {type(exc).__name__}: {str(exc)[:300]}") from exc


@contextmanager
def environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# ------------------------------------------------------------------------------------------------------------------ settings

PROFILE = """\
[devices.pixel]
address = "adb:1A2B3C4D"
runner = "native"
cpus = [4, 5]
libraries.litert = ["libs/a.so", "libs/b.so"]
tools.benchmark_model = "bin/benchmark_model"
cool = { below_c = 40, wait_s = 900 }

[tables.mobilenet]
device = "pixel"
plan = ["plan.json"]
runtime = "litert"
threads = 2
runner = "native"
target_error = "2%"
max_held_out_error = 5.0
max_age_days = 30
max_layers = 500
rounds = 6
when = "0 3 * * mon-fri"
out = "tables/mobilenet.parquet"
keep = 5

[schedule]
webhook = "https://example.org/hook"
command = ["notify-send", "tables"]
"""
SCRIPT = """\
seed = 3
[device]
cpu = "made up"
cores = 4
[runtimes]
litert = "2.3.0"
[latency]
base_us = 20
us_per_kilobyte = 1.5
noise_percent = 0.5
[slow]
every_s = 10.0
for_s = 1.0
percent = 30.0
[energy]
idle_w = 1.0
busy_w = 3.0
[[fault]]
kind = "crash"
measurement = 7
signal = "SIGSEGV"
"""


@reader("profile.toml", "profile.toml", "toml", PROFILE.encode)
def _profile(path: Path) -> object:
    from profiler.devices.config import configured_devices
    from profiler.schedule.config import read_schedule

    with environment(PROFILE_CONFIG=str(path)):
        return configured_devices(), repr(read_schedule())


@reader("fake script", "script.toml", "toml", SCRIPT.encode)
def _script(path: Path) -> object:
    from device_agents.fake_script import read_script

    return read_script(path)


def _state_example() -> bytes:
    from profiler.schedule.state import Failure, State, state_path, write_state

    now = "2026-01-01T03:00:00+00:00"
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "t.parquet")
        write_state(table, State(now, "failed", ("it is old",), "it failed", Failure(now, "no room"), now, 30.0))
        return state_path(table).read_bytes()


@reader("schedule state", "t.state.json", "json", _state_example)
def _state(path: Path) -> object:
    from profiler.console import local_time
    from profiler.schedule.state import read_state, stale_reason

    table = path.with_name("t.parquet")
    state = read_state(table)
    for utc in (state.looked_utc, state.next_utc, state.failure and state.failure.utc):
        if utc is not None:
            local_time(datetime.fromisoformat(utc))
    return json.dumps([state.did, state.sentence, *state.stale]).encode(), stale_reason(table, _table())


@reader("lock", "lock.json", "json", lambda: b'{"pid": %d, "command": "profile build", "since_s": 1760000000.5}' % os.getpid())
def _lock(path: Path) -> object:
    from device_agents.device_lock import holder, lock_path

    with environment(XDG_CACHE_HOME=str(path.parent)):
        kept = lock_path("local")
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(path.read_bytes())
        return str(holder("local"))


# ------------------------------------------------------------------------------------------------- plans, tables and journals


@cache
def _graph() -> Any:
    from graphs import mobilenet_v1

    return mobilenet_v1(0.25, 32, classes=10, pairs=1)


@cache
def _table() -> Any:
    """With something in every field."""
    from profiler.interval import Interval
    from profiler.latency.calibration import Calibration
    from profiler.latency.staircase import Staircase
    from profiler.latency.validation import HeldOutError, HeldOutNetwork
    from profiler.measure.estimate import Estimate
    from profiler.protocol.settings import Target, TimingSettings
    from profiler.tables.table import Table, TableInfo

    graph, now = _graph(), "2026-01-01T00:00:00+00:00"
    rows = {layer: Estimate(Interval(0.5, 0.49, 0.51), 6, 120, 6) for layer in graph.layers}
    checked = [HeldOutNetwork(f"n{number}", Interval(1.0, 0.9, 1.1), 1.0 + number / 50, 1.3) for number in range(6)]
    device = {"version": "2.3.0", "device": {"cpu": "test"}, "flags": {"xnnpack": True}, "conditioning": {}, "affinity": [0, 1]}
    info = TableInfo(
        Target("pixel", "litert", 1, "python3", "python"), device, TimingSettings(), now,
        Calibration(scale=0.9, tile=8, networks=6, residual_percent=2.0), HeldOutError.of(checked), {"conv": "it crashed"}, ("n0",),
        {("conv2d", "out"): Staircase(8, True, 8)}, 8, ("n1",), 6, {"ab" * 32: graph}, {"measurements": 10, "drift": 1},
        [{"wall_s": 1.0, "layers": 3, "error_percent": 4.0}],
        3.0, 10.0, 20.0, {graph.layers[0].key: now}, now,
    )  # fmt: skip
    return Table(rows, info, {graph.layers[0]: 1.5})


def _use_table(path: Path) -> object:
    """As `profile check`, `show` and `predict` do."""
    from profiler.tables.check import check_table
    from profiler.tables.predictor import Predictor
    from profiler.tables.table import load_table
    from profiler.tables.trust import trust_sentence

    table = load_table(path)
    explained = Predictor(table).explain(_graph())
    said = [
        trust_sentence(table),
        explained.latency_ms.value,
        *(f"{finding.what}{finding.next_step}" for finding in check_table(table)),
    ]
    assert json.dumps(said).encode() and table.info.age_days is not None
    table.save(path.with_name("again.parquet"))
    return table.verified, table.info.calibration.tile, table.disturbed_percent


def _saved_table() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        _table().save(Path(folder, "t.parquet"))
        return Path(folder, "t.parquet").read_bytes()


reader("table file", "t.parquet", "bytes", _saved_table)(_use_table)


def _table_contents() -> bytes:
    import pyarrow.parquet as pq

    arrow = pq.read_table(io.BytesIO(_saved_table()))
    return json.dumps({"info": json.loads(arrow.schema.metadata[b"latency_table"]), "rows": arrow.to_pylist()[:3]}).encode()


@reader("table contents", "contents.json", "json", _table_contents)
def _contents(path: Path) -> object:
    """What a well-formed Parquet file may hold: the metadata and the rows as the bytes say, where the columns can hold them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from profiler.tables.table import METADATA_KEY, SCHEMA, rows_sha256

    try:
        plain = json.loads(path.read_bytes())
        info, rows = plain["info"], plain["rows"]
        columns = {name: [row.get(name) for row in rows] for name in SCHEMA.names}
        arrow = pa.table(columns, schema=SCHEMA)
        # the rows as they will be read are those that were saved, or nothing behind this check would be reached
        info |= {"rows": len(rows), "rows_sha256": rows_sha256(arrow.to_pylist())}
        arrow = arrow.replace_schema_metadata({METADATA_KEY: json.dumps(info).encode()})
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, pa.ArrowException):
        return None
    pq.write_table(arrow, path.with_name("t.parquet"))
    return _use_table(path.with_name("t.parquet"))


@reader("plan", "plan.json", "json", lambda: json.dumps(_plan().to_dict()).encode())
def _read_plan(path: Path) -> object:
    from profiler.tables.plan import possible_layers, read_plan

    plan = read_plan(path)
    return plan.to_dict(), plan.graph.macs, plan.graph.parameters, possible_layers(plan), [*map(plan.graph.at_widths, plan.check)]


@cache
def _plan() -> Any:
    """With a cut-out and few networks."""
    import hashlib

    from profiler.layers.graph import Graph, Node
    from profiler.layers.layer import LayerSpec, OpaqueSubgraph
    from profiler.tables.plan import Plan

    graph = _graph()
    data = b"a piece of a file"
    digest = hashlib.sha256(data).hexdigest()
    last = graph.nodes[-1]
    cut = LayerSpec("odd", (last.layer.output,), last.layer.output, opaque=OpaqueSubgraph(digest, 4, "onnx"))
    nodes = (*graph.nodes, Node("cut", cut, (last.name,)))
    whole = Graph("small", graph.inputs, nodes, ("cut",), {digest: data})
    return Plan(whole, ({"pw1": 8},), ({"pw1": 16},))


def _journal_lines() -> bytes:
    from profiler.protocol.settings import TimingSettings

    graph, hello = _graph(), {"device": {"cpu": "x"}, "flags": {}, "runtime": "fake", "version": "1", "runner_sha256": "b" * 64}
    layers = list(dict.fromkeys(graph.layers))[:3]
    target = {"device": "pixel", "runtime": "fake", "threads": 1}
    lines: list[dict[str, Any]] = [
        {"event": "journal", "format": 6, "target": target, "settings": TimingSettings().to_dict()},
        {"event": "hello", "protocol": 5, "utc": "2026-01-01T00:00:00+00:00", **hello},
        *({"event": "layer", "model": layer.key, "layer": layer.to_dict()} for layer in layers),
        {"event": "network", "model": "n", "role": "check", "graph": graph.of_layer(layers[0]).to_dict()},
        {"event": "conditioning", "state": {"governor": "x"}},
        {"event": "round", "round": 0, "clock_ns": 5, "load_1min": 0.5, "temperature_c": 40.0, "throttled": 0, "thermal_status": 0},
        {"event": "idle", "round": 0, "duration_ns": 1000, "energy_uj": 5},
        {"event": "failed", "model": layers[2].key, "round": 0, "reason": "no such operator", "crash": False},
        {"event": "staircases", "rules": [{"kind": "conv2d", "axis": "out", "step": 8, "flat": True, "granularity": 8}]},
        {"event": "error", "wall_s": 1.0, "layers": 2, "error_percent": 3.0, "between_percent": 1.0},
        {"event": "spent", "wall_s": 2.0},
        {"event": "energy", "model": layers[0].key, "round": 0, "duration_ns": 1000, "energy_uj": 50, "inferences": 3},
        *(_measurement(key, number) for number in range(3) for key in ("n", layers[0].key, layers[1].key)),
        {**_measurement(layers[0].key, 3), "event": "reference"},
        {"event": "refresh", "models": [layers[1].key], "utc": "2026-02-01T00:00:00+00:00"},
        _measurement(layers[1].key, 4),
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def _measurement(key: str, number: int) -> dict[str, Any]:
    return {
        "event": "measurement", "model": key, "round": number, "started_ns": 5, "loops": 2, "samples_ns": [900 + number, 1000],
        "switched": [1], "clock_khz": [1000, None], "core": 0,
    }  # fmt: skip


@reader("journal", "t.journal.jsonl", "lines", _journal_lines)
def _journal(path: Path) -> object:
    from profiler.measure.state import MeasurementState
    from profiler.protocol.journal import read_journal
    from profiler.tables.derive import table_of

    table = table_of(MeasurementState.of(read_journal(path)))
    table.save(path.with_name("t.parquet"))
    return _use_table(path.with_name("t.parquet"))


@reader("recording", "t.journal.jsonl", "lines", _journal_lines)
def _recording(path: Path) -> object:
    from jobs import runner_of, typed_job

    from device_agents.replay import ReplayAgent
    from profiler.protocol.events import Crashed, Measurement
    from profiler.protocol.journal import read_journal
    from profiler.protocol.lines import event_data

    with ReplayAgent(f"replay:{path}") as agent:
        runner = runner_of(agent, "fake")
        names = list(dict.fromkeys(event.model for event in read_journal(path) if isinstance(event, Measurement))) or ["a"]
        agent.store({f"{name}.json": b"{}" for name in names})
        job = typed_job(names, [names, names], runtime="fake", reference=names[0])
        events = [runner.probe(), *runner.run(job)]
        return [json.dumps(event_data(event)) for event in events if not isinstance(event, Crashed)]


# ------------------------------------------------------------------------------------------------------------ what a device says


def _runner_lines() -> bytes:
    about = {"model": "a", "round": 0}
    seen = {"started_ns": 5, "loops": 2, "samples_ns": [900, 1000], "switched": [1], "clock_khz": [1000, None], "core": 0}
    tensors = [{"float": [1, 2]}]
    operator = {
        "name": "a",
        "op": "Conv",
        "partition": "cpu",
        "index": 1,
        "inputs": tensors,
        "outputs": tensors,
        "samples_us": [5, 6],
    }
    lines = [
        {"event": "hello", "protocol": 8, "device": {"cpu": "x"}, "flags": {}, "runtime": "fake", "version": "1"},
        {"event": "probe", "protocol": 8, "device": {}, "runtimes": {"litert": {"version": "1"}}},
        {"event": "round", "round": 0, "clock_ns": 5, "load_1min": 0.5, "temperature_c": 40.0, "throttled": 0, "thermal_status": 0},
        {"event": "begin", **about},
        {"event": "measurement", **about, **seen},
        {"event": "outputs", **about, "outputs": [{"shape": [1, 2], "type": "float32", "values": [0.5, 1.5]}]},
        {"event": "idle", "round": 0, "duration_ns": 5, "energy_uj": 5},
        {"event": "energy", **about, "duration_ns": 5, "energy_uj": 5, "inferences": 1},
        {"event": "executed", **about, "graph": "AAAA", "reason": None, "inferences_us": [7, 8], "operators": [operator]},
        {"event": "failed", **about, "reason": "it does not fit"},
        {"event": "busy", "holder": "process 7"},
        {"event": "done"},
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


@reader("runner lines", "lines.jsonl", "lines", _runner_lines)
def _messages(path: Path) -> object:
    """Each line on its own: one that is refused must not hide the next."""
    from profiler.errors import RunnerError
    from profiler.protocol.lines import event_data, parse_line

    refused = None
    for line in path.read_bytes().decode(errors="replace").splitlines():
        try:
            if (event := parse_line(line)) is not None:
                json.dumps(event_data(event), ensure_ascii=False).encode()
        except RunnerError as exc:
            refused = exc
    if refused is not None:
        raise refused
    return None


def _job_example() -> bytes:
    from runner_conformance import a_job

    return json.dumps(a_job({"a": {}, "b": {}}, [["a", "b"]], reference="a", cpus=[0, 1], energy_ms=0)).encode()


@reader("job", "job.json", "json", _job_example, SystemExit)  # type: ignore[arg-type]
def _job(path: Path) -> object:
    from device_agents.on_device.runner.job import read_job

    return read_job(path)


@reader("shell packets", "packets.bin", "bytes", lambda: b"\x01\x05\0\0\0hello\x02\x02\0\0\0ab\x03\x01\0\0\0\x07", ValueError)
def _packets(path: Path) -> object:
    from device_agents.adb.shell_v2 import PacketParser

    data, parser = path.read_bytes(), PacketParser()
    return [packet for place in range(0, len(data), 7) for packet in parser.feed(data[place : place + 7])]


def _snapshot_example() -> bytes:
    from devices import RECORDED

    def told(name: str) -> str:
        return (RECORDED / name).read_text()

    cpu = "/sys/devices/system/cpu"
    parts = [
        ("f /proc/loadavg", "0.52 0.58 0.59 1/977 31416"), ("f /proc/uptime", "350735.47 234388.90"),
        ("f /proc/stat", "cpu  10 0 10 1000 0 0 0 5\ncpu0 5 0 5 500"), ("F /proc/stat", "cpu  20 0 10 1100 0 0 0 9"),
        ("F /proc/uptime", "350736.47 234388.90"), ("f /proc/self/stat", "99 (sh) S 1 1"),
        ("f processes", "7 (a) S 1 2 3 4 5 6 7 8 9 10 11 5 5 0"), ("F processes", "7 (a) S 1 2 3 4 5 6 7 8 9 10 11 50 50 0"),
        ("f /proc/self/cgroup", "0::/user.slice"), ("f /sys/fs/cgroup/cgroup.controllers", "cpu"),
        ("f /sys/fs/cgroup/user.slice/cpu.max", "50000 100000"), ("f /proc/cpuinfo", "flags : fpu hypervisor"),
        (f"f {cpu}/online", "0-7"), (f"f {cpu}/cpu0/cpufreq/scaling_governor", "schedutil"),
        (f"f {cpu}/cpu0/cpufreq/cpuinfo_max_freq", "2400000"), (f"f {cpu}/cpu0/topology/thread_siblings_list", "0,4"),
        ("f /sys/class/thermal/thermal_zone0/type", "cpu-0-0"), ("f /sys/class/thermal/thermal_zone0/temp", "45000"),
        ("f /sys/class/power_supply/battery/type", "Battery"), ("f /sys/class/power_supply/battery/temp", "310"),
        ("o getprop", told("getprop_pixel_6_pro.txt")), ("o dumpsys battery", told("battery_pixel_c.txt")),
        ("o nvpmodel -q", told("nvpmodel_thor.txt")), ("o jetson_clocks --show", told("jetson_clocks_nano_5w.txt")),
        ("o getconf _NPROCESSORS_ONLN", "8"), ("d /sys/class/power_supply", ""), ("x /etc/nv_tegra_release", ""),
    ]  # fmt: skip
    return ("".join(f"MARK {head}\n{text}\n" for head, text in parts) + "MARK end\n").encode()


@reader("device state", "state.txt", "text", _snapshot_example)
def _snapshot(path: Path) -> object:
    from profiler.devices.doctor import judge
    from profiler.devices.facts import facts
    from profiler.devices.snapshot import parse_snapshot
    from profiler.devices.thermal import heat

    snapshot = parse_snapshot(path.read_bytes().decode(errors="replace"), "MARK")
    found = facts(snapshot, snapshot, (5, 6, 7))
    said = [f"{finding.what}{finding.next_step}" for finding in judge(found)]
    return json.dumps([found.to_dict(), found.sentence(), said]), heat(snapshot)


VENDORS = (
    "count=3 first=235158 curr=200386 min=199462 max=235158 avg=211669 std=16613 p5=199462 median=200386 p95=235158\n"
    "count=25 first=187533 curr=140990 min=140071 max=195121 avg=145528 std=13583 p5=140545 median=141253 p95=187533\n"
    "P50 Latency: 0.0995086 s\n"
)


@reader("vendor tools", "printed.txt", "text", VENDORS.encode)
def _vendor(path: Path) -> object:
    from profiler.runners.benchmark_model import BenchmarkModel
    from profiler.runners.perf_test import PerfTest

    text = path.read_bytes().decode(errors="replace")
    return [tool._latency_ns(object.__new__(tool), text) for tool in (BenchmarkModel, PerfTest)]


# ------------------------------------------------------------------------------------------------------------- others' tables

KERNELS = {
    "conv-bn-relu": {"a": {"config": {"HW": 13, "CIN": 12, "COUT": 8, "KERNEL_SIZE": 3, "STRIDES": 2}, "latency": "37.5 +- 0.3"}},
    "dwconv": {"b": {"config": {"HW": 13, "CIN": 12, "KERNEL_SIZE": 3, "STRIDES": 1}, "latency": 3.5}},
    "fc": {"c": {"config": {"CIN": 12, "COUT": 8}, "latency": "1e-1 +- 1e-3"}},
    "concat": {"d": {"config": {"HW": 4, "CIN1": 3, "CIN2": 5}, "latency": "1 +- 0.1"}},
    "maxpool": {"e": {"config": {"HW": 8, "CIN": 3, "KERNEL_SIZE": 3, "POOL_STRIDES": 2}, "latency": "1 +- 0.1"}},
}
LUT = """\
Conv-input:32x32x3-output:16x16x8: {count: 60, mean: 0.9, var: 0.001}
Conv_1-input:8x8x16-output:8x8x64: {count: 60, mean: 0.5, var: 0.001}
Logits-input:8x8x64-output:10: {count: 60, mean: 0.2, var: 0.001}
? expanded_conv-input:16x16x8-output:16x16x8-expand:1-kernel:3-stride:1-idskip:1
: {count: 60, mean: 1.2, var: 0.001}
"""


def _tuning_log() -> bytes:
    def record(name: str, arguments: list[Any]) -> dict[str, Any]:
        return {"v": 0.1, "i": ["cuda", name, arguments, {}, [], {}], "r": [[0.001, 0.0012, 0.0011], 0, 1.5, 1.5e9]}

    data, weights = ["TENSOR", [1, 8, 14, 12], "float32"], ["TENSOR", [16, 8, 3, 3], "float32"]
    conv = record("topi_nn_conv2d", [data, weights, [2, 2], [1, 1], "NCHW", "float32"])
    spread = record("conv2d_nchw.cuda", [data, weights, [1, 1], [1, 1, 1, 1], [1, 1], "float32"])
    depthwise = record("depthwise_conv2d_nchw.x", [data, ["TENSOR", [8, 1, 3, 3], "float32"], [1, 1], [1, 1], [1, 1], "float32"])
    dense = record("dense.x", [["TENSOR", [1, 8], "float32"], ["TENSOR", [4, 8], "float32"], None, "float32"])
    return "\n".join(map(json.dumps, (conv, spread, depthwise, dense))).encode()


def _import(path: Path) -> object:
    from profiler.exchange.exporting import export_table
    from profiler.exchange.formats import writable
    from profiler.exchange.importing import ImportOptions, import_table

    table = import_table([path], ImportOptions("phone"))
    table.save(path.with_name("t.parquet"))
    for name in writable():
        try:
            export_table(table, name, path.with_name(f"out.{name}"))
        except ToolError:
            pass
    return _use_table(path.with_name("t.parquet"))


reader("nn-meter", "kernels.json", "json", lambda: json.dumps(KERNELS).encode())(_import)
reader("ofa", "lut.yaml", "yaml", LUT.encode)(_import)
reader("tvm", "tuning.log", "lines", _tuning_log)(_import)


# --------------------------------------------------------------------------------------------------------------------- models


def _written(suffix: str) -> bytes:
    from profiler.formats.model_file import FORMATS

    return FORMATS[suffix].write(_graph())


def _read_model(path: Path) -> object:
    from profiler.formats.model_file import read_model

    graph = read_model(path)
    return graph.to_dict(), graph.macs, [layer.key for layer in graph.layers]


reader("tflite", "model.tflite", "bytes", lambda: _written("tflite"))(_read_model)
reader("onnx", "model.onnx", "bytes", lambda: _written("onnx"))(_read_model)


@cache
def _asked() -> Any:
    """What onnxruntime answers for a small network."""
    from asking import answer

    return answer(_written("onnx"))


@reader("executed graph", "executed.onnx", "bytes", lambda: base64.b64decode(_asked().graph))
def _executed_graph(path: Path) -> object:
    from profiler.formats.onnx.executed import read_executed

    return read_executed("network", path.read_bytes(), _asked().operators, 8).graph.layers


# ------------------------------------------------------------------------------------------------------------ NetAdapt's files

RUN_FILES = ("run.json", "graph.json", "verify.json", "baselines.json", "layers.json", "choices.json", "exports.json")
RUN_LINES = ("steps.jsonl", "candidates.jsonl", "finished.jsonl")


def _run_example() -> bytes:
    """Every file of a run's folder in one: what it says, by name."""
    from sample_run import complete_run

    with tempfile.TemporaryDirectory() as folder, complete_run(Path(folder, "run")) as run:
        files = {name: json.loads((run.path / name).read_bytes()) for name in RUN_FILES if (run.path / name).exists()}
        lines = {name: [*map(json.loads, (run.path / name).read_text().splitlines())][:3] for name in RUN_LINES}
    choice = {
        "shape": "even", "step": 1, "step_widths": {"pw1": 8}, "target": {"device": "local", "runtime": "litert"},
        "label": "0.5", "widths": {"pw1": 8}, "measured_ms": {"value": 1.0, "low": 0.9, "high": 1.1}, "step_ms": None,
    }  # fmt: skip
    delivered = {
        "step": 1, "path": "exports/a.onnx", "sha256": "0" * 64, "format": "onnx", "precision": "float32", "size_bytes": 5,
        "created_utc": "2026-01-01T00:00:00+00:00",
        "agreement": {"images": 5, "max_abs_difference": 1e-6, "cosine_similarity": 1.0},
        "scores": {"accuracy": 0.9, "metrics": {}}, "torch_scores": {"accuracy": 0.9, "metrics": {}},
    }  # fmt: skip
    shorter = {name: files[name][:2] for name in ("verify.json", "baselines.json", "layers.json")}
    files["graph.json"] = _graph().to_dict()
    return json.dumps(files | shorter | lines | {"choices.json": [choice], "exports.json": [delivered]}).encode()


@reader("run folder", "files.json", "json", _run_example)
def _run_folder(path: Path) -> object:
    from netadapt.runs.run_folder import RunFolder

    try:
        plain = json.loads(path.read_bytes())
        files = {name: _file_text(name, plain[name]) for name in (*RUN_FILES, *RUN_LINES) if name in plain}
    except (ValueError, TypeError, RecursionError):
        return None
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text)
        run = RunFolder.open(Path(folder))
        weights = [run.weights_path(step.weights) for step in run.steps]
        weights += [run.weights_path(item.weights) for item in run.finished.values()]
        assert all(item.parent == Path(folder, "weights") for item in weights)
        said = [repr(run.info.goals), repr(run.unfinished), repr(run.baselines), repr(run.choices), repr(run.layers)]
        return said, repr(run.verified), repr(run.exported), [item.accuracies for item in run.baselines]


def _file_text(name: str, plain: Any) -> str:
    if name in RUN_LINES and isinstance(plain, list):
        return "".join(json.dumps(line) + "\n" for line in plain)
    return json.dumps(plain)


@reader("worker lines", "lines.jsonl", "lines", lambda: _worker_lines(), ValueError, needs="torch")
def _worker(path: Path) -> object:
    from netadapt.executors.messages import read_event

    refused = None
    for line in path.read_bytes().splitlines():
        try:
            read_event(line)
        except ValueError as exc:
            refused = exc
    return refused


def _worker_lines() -> bytes:
    candidate = {"iteration": 1, "widths": {"a": 8}, "prices": {"macs": 1.0}, "blocks": ["a"]}
    done = {"candidate": candidate, "accuracy": 0.5, "weights": "a.pt"}
    lines = [{"losses": [2.3, 2.1]}, {"done": done}, {"failed": "netadapt.errors:RunError", "message": "no"}, {"lost": "gone"}]
    return "\n".join(map(json.dumps, lines)).encode()


@reader("weights", "model.pt", "bytes", lambda: _weights_example(), needs="torch")
def _weights(path: Path) -> object:
    from netadapt.training.checkpoint import load_weights

    return load_weights(_tiny(), path)


def _tiny() -> Any:
    from torch import nn

    return nn.Linear(3, 2)


def _weights_example() -> bytes:
    import torch

    data = io.BytesIO()
    torch.save(_tiny().state_dict(), data)
    return data.getvalue()


# --------------------------------------------------------------------------------------------------------------------- images


def _png(mode: str = "RGB", size: tuple[int, int] = (32, 24), shade: Any = (9, 8, 7), kind: str = "PNG") -> bytes:
    from PIL import Image

    data = io.BytesIO()
    Image.new(mode, size, shade).save(data, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return data.getvalue()


def _npz(arrays: Mapping[str, Any]) -> bytes:
    data = io.BytesIO()
    np.savez(data, **arrays)
    return data.getvalue()


def _joined(pieces: Sequence[bytes]) -> tuple[Any, Any]:
    return np.frombuffer(b"".join(pieces), np.uint8), np.cumsum([0, *map(len, pieces)])


def _nyu_arrays() -> dict[str, Any]:
    rgb, rgb_offset = _joined([_png()] * 3)
    depth, depth_offset = _joined([_png("L", shade=50)] * 3)
    return {
        "rgb_jpeg": rgb, "rgb_offset": rgb_offset, "depth_png": depth, "depth_offset": depth_offset,
        "depth_scale_m": np.float64(0.1),
        "depth_bias_m": np.float64(0.0), "nyu_index": np.array([2, 5, 9]), "split": np.array(["train", "train", "test"]),
    }  # fmt: skip


def _cifar_arrays() -> dict[str, Any]:
    webp, offset = _joined([_png(size=(32, 64), kind="WEBP")] * 2)
    classes, labels = np.array(["cat", "dog"]), np.array([0, 1, 0, 1])
    return {"webp": webp, "offset": offset, "label": labels, "is_test": np.array([0, 0, 1, 1], bool), "classes": classes}


@reader("nyu npz", "nyu.npz", "bytes", lambda: _npz(_nyu_arrays()), needs="torch")
def _nyu(path: Path) -> object:
    from netadapt.training.datasets.nyu import load_nyu

    return load_nyu(str(path), 16)


@reader("cifar10 npz", "cifar10.npz", "bytes", lambda: _npz(_cifar_arrays()), needs="torch")
def _cifar(path: Path) -> object:
    from netadapt.training.datasets.cifar10 import load_cifar10

    return load_cifar10(str(path), 16)


@reader("cifar10 binary", "data_batch_1.bin", "bytes", lambda: bytes(3073 * 2), needs="torch")
def _cifar_binary(path: Path) -> object:
    from netadapt.training.datasets.cifar10 import load_cifar10

    (path.parent / "test_batch.bin").write_bytes(bytes(3073))
    return load_cifar10(str(path.parent), 16)


@reader("image", "a.png", "bytes", _png, needs="torch")
def _one_image(path: Path) -> object:
    from netadapt.training.datasets.folder import _image

    return _image(path, 16)


@reader("cifar10 python", "data_batch_1", "bytes", lambda: _cifar_pickle(), needs="torch")
def _cifar_python(path: Path) -> object:
    from netadapt.training.datasets.cifar10 import load_cifar10

    (path.parent / "test_batch").write_bytes(_cifar_pickle())
    return load_cifar10(str(path.parent), 16)


def _cifar_pickle() -> bytes:
    return pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1], "batch_label": "one of 5"}, protocol=2)


@reader("array npz", "arrays.npz", "bytes", lambda: _npz(_plain_arrays()), needs="torch")
def _arrays(path: Path) -> object:
    from netadapt.training.datasets.plain_arrays import load_npz

    return load_npz(str(path), 16)


def _plain_arrays() -> dict[str, Any]:
    return {"x_train": np.zeros((4, 8, 8), np.uint8), "y_train": np.array([0, 1, 0, 1])}


@reader("idx", "train-images-idx3-ubyte", "bytes", lambda: _idx_example((4, 8, 8)), needs="torch")
def _idx(path: Path) -> object:
    from netadapt.training.datasets.plain_arrays import load_idx

    (path.parent / "train-labels-idx1-ubyte").write_bytes(_idx_example((4,)))
    return load_idx(str(path.parent), 16)


def _idx_example(shape: tuple[int, ...]) -> bytes:
    values = bytes(number % 2 for number in range(math.prod(shape)))
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + values


@reader("nyu h5", "a.h5", "bytes", lambda: _h5(), needs="h5py")
def _h5_pair(path: Path) -> object:
    from netadapt.training.datasets.nyu import _pair_of

    return _pair_of(path)


def _h5() -> bytes:
    import h5py

    data = io.BytesIO()
    with h5py.File(data, "w") as opened:
        opened["rgb"], opened["depth"] = np.zeros((3, 6, 8), np.uint8), np.ones((6, 8), np.float32)
    return data.getvalue()


@reader("encoder npz", "encoder.npz", "bytes", lambda: _npz(_encoder_arrays()), needs="torch")
def _encoder(path: Path) -> object:
    from netadapt.networks.pretrained import _read

    return _read(path)


def _encoder_arrays() -> dict[str, Any]:
    from netadapt.networks.pretrained import _LAYERS

    kinds = np.array(["conv", *("dw" if number % 2 else "conv" for number in range(1, _LAYERS))])
    layers = {f"w{number:02d}": np.zeros((1, 1, 1, 1), np.uint8) for number in range(_LAYERS)}
    layers |= {f"b{number:02d}": np.zeros(1, np.int32) for number in range(_LAYERS)}
    return {"kind": kinds, **{name: np.ones(_LAYERS, np.float32) for name in ("w_scale", "w_zero", "b_scale")}, **layers}
