"""`--json` of the `profile` command: the keys and values that programs have read so far (tests/expected/profile_json.json)."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from graphs import mobilenet_v1
from test_exchange_cli import LUT
from test_profile_cli import run_json, succeed
from test_table import table

from profiler.cli.benchmark import measured_data
from profiler.cli.devices import found_data, print_found
from profiler.devices.config import Device
from profiler.formats.model_file import FORMATS
from profiler.interval import Interval
from profiler.latency.calibration import Calibration
from profiler.latency.staircase import Staircase
from profiler.latency.validation import HeldOutError, HeldOutNetwork
from profiler.measure.benchmark import Measured
from profiler.measure.discovery import Found
from profiler.measure.estimate import estimate
from profiler.protocol.events import DeviceFacts, Hello, Measurement, Probe, Round, RuntimeState
from profiler.protocol.settings import Target
from profiler.schedule.state import Failure, State, write_state
from profiler.tables.plan import make_plan, write_plan
from profiler.tables.table import Table

EXPECTED: dict[str, Any] = json.loads((Path(__file__).parent / "expected" / "profile_json.json").read_text())
NETWORK, LARGER = (mobilenet_v1(0.25, resolution, classes=10, pairs=2) for resolution in (32, 48))
PASSING = ("age_days", "created_utc", "looked_utc", "next_utc")
"""What changes as time goes by."""
NOW = datetime.now(UTC).isoformat(timespec="seconds")
COMMANDS: dict[str, list[str]] = {
    "layers": ["layers", "network.tflite"],
    "show": ["show", "t.parquet"],
    "predict": ["predict", "t.parquet", "network.tflite"],
    "predict with layers missing": ["predict", "t.parquet", "larger.tflite"],
    "check": ["check", "t.parquet"],
    "compare": ["compare", "t.parquet", "u.parquet"],
    "import": ["import", "lut.yaml", "--device-name", "pixel1", "--out", "imported.parquet"],
    "predict from an imported table": ["predict", "imported.parquet", "network.tflite"],
    "show an imported table": ["show", "imported.parquet"],
    "export": ["export", "t.parquet", "--format", "nn-meter", "--out", "kernels.json"],
    "clean": ["clean", "phone"],
    "schedule status": ["schedule", "status"],
}


def measured(latency_ms: float) -> Table:
    """A table with something in every field."""
    plain = table(NETWORK, latency_ms)
    checked = [
        HeldOutNetwork(f"n{n}", Interval(1.0 + n, 0.9 + n, 1.1 + n), (1.02 + 0.03 * (n % 2)) * (1 + n), 1.5 + n) for n in range(5)
    ]
    info = replace(
        plain.info,
        created_utc=NOW,
        calibration=Calibration(scale=0.9, networks=8, residual_percent=1.5),
        held_out=HeldOutError.of(checked),
        failed={"conv2d-odd": "it is odd"},
        networks=("n0", "n1"),
        staircases={("conv2d", "out"): Staircase(16, True, 8), ("depthwise_conv2d", "in"): Staircase(8, True, 8)},
        disturbances={"measurements": 100, "switched": 3},
        progress=({"wall_s": 1.0, "layers": 3, "error_percent": 4.0, "between_percent": 1.0},),
        reference_drift_percent=2.0,
        measuring_s=12.5,
        wall_s=30.0,
    )
    return Table(plain.rows, info, dict.fromkeys(list(plain.rows)[:2], 0.25))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every file that the commands are given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "network.tflite").write_bytes(FORMATS["tflite"].write(NETWORK))
    (tmp_path / "larger.tflite").write_bytes(FORMATS["tflite"].write(LARGER))
    measured(0.5).save(tmp_path / "t.parquet")
    measured(0.75).save(tmp_path / "u.parquet")
    (tmp_path / "lut.yaml").write_text(LUT)
    (tmp_path / "script.toml").write_text('seed = 1\n[runtimes]\nlitert = "2.3.0"\n')
    write_plan(make_plan(NETWORK), tmp_path / "plan.json")
    of_phone = 'device = "phone"\nplan = "plan.json"\nruntime = "litert"\n'
    (tmp_path / "profile.toml").write_text(
        f'[devices.phone]\naddress = "fake:script.toml"\n[tables.t]\n{of_phone}out = "t.parquet"\n[tables.none]\n{of_phone}'
    )
    failure = Failure("2026-01-02T03:00:00+00:00", "the cable was out")
    write_state(tmp_path / "t.parquet", State(NOW, "failed", ("it is odd",), "it failed", failure))
    succeed("import", "lut.yaml", "--device-name", "pixel1", "--out", "imported.parquet")
    return tmp_path


def without_time(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {name: None if name in PASSING else without_time(value) for name, value in plain.items()}
    return [without_time(value) for value in plain] if isinstance(plain, list) else plain


def as_read(plain: object) -> Any:
    return json.loads(json.dumps(plain))


@pytest.mark.parametrize("name", COMMANDS)
def test_json_has_the_keys_and_values_that_it_always_had(folder: Path, name: str) -> None:
    if name == "import":
        (folder / "imported.parquet").unlink()
    found = without_time(run_json(*COMMANDS[name]))
    assert found == EXPECTED[name]
    assert [*found] == [*EXPECTED[name]]


FOUND = Found(
    Device("phone", "adb:1A2B"), "Pixel", None,
    Probe(
        protocol=8, device=DeviceFacts(cpu="Tensor", cores=8, memory_bytes=2**33, machine="aarch64"), runner="native",
        runtimes={"litert": RuntimeState("2.3.0"), "onnxruntime": RuntimeState(missing=True)}, load_1min=0.5,
    ),
)  # fmt: skip
MEASURED = Measured(
    Path("network.tflite"),
    estimate([Measurement("network.tflite", number, 2, (2_000_000 + 1000 * number, 2_000_500)) for number in range(4)]),
    Hello(protocol=8, pid=7, version="2.3.0", device=DeviceFacts(cpu="Tensor"), flags={"simulated": True}),
    (Round(round=0, load_1min=0.5, clock_ns=7),),
    reference_ms=None,
)


def test_a_device_has_the_keys_and_values_that_it_always_had() -> None:
    assert as_read(found_data(FOUND)) == EXPECTED["a device"]
    unreachable = Found(FOUND.device, "Pixel", "it is not authorised", None)
    assert as_read(found_data(unreachable)) == EXPECTED["a device that cannot be asked"]


@pytest.mark.parametrize(("name", "section"), [("phone", "[devices.phone]"), ("adb:1A2B", "[devices.NAME]")])
def test_a_device_without_a_runtime_is_told_the_lines_that_would_name_one(
    name: str, section: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert FOUND.probe is not None
    print_found(replace(FOUND, device=Device(name, "adb:1A2B"), probe=replace(FOUND.probe, runtimes={})))
    assert f'below {section}, address = "adb:1A2B" and' in capsys.readouterr().out


def test_a_benchmark_has_the_keys_and_values_that_it_always_had() -> None:
    assert as_read(measured_data(MEASURED, Target("phone", "litert", 2))) == EXPECTED["benchmark"]
