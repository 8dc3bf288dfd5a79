"""Builds, benchmarks of files and spot checks measure alike: with looks at a reference layer, in rounds of equal length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from executor_runs import INFO, OPTIONS, traced
from test_build import FEW, NETWORK, PLAN

from netadapt.actions import ExportRequest, export
from netadapt.runs.device_check import DeviceCheck
from netadapt.runs.models import RunModels
from netadapt.runs.records import TableFacts
from netadapt.runs.run_folder import RunFolder
from netadapt.search.candidates import Candidate
from netadapt.search.types import Result, Step
from netadapt.training.checkpoint import save_weights
from profiler.formats.model_file import FORMATS
from profiler.layers.layer import conv2d
from profiler.measure.benchmark import measure_files
from profiler.measure.loop import FEW_MODELS_LONGER
from profiler.measure.state import MeasurementState
from profiler.progress import Silent
from profiler.protocol.events import DeviceFacts, Failed, Hello, LayerAdded, Refresh, RunEvent
from profiler.protocol.job import Job
from profiler.protocol.settings import Target, TimingSettings
from profiler.runners.simulated import SimulatedRunner
from profiler.schedule.spot_check import spot_check
from profiler.tables.build import build
from profiler.tables.growing import GrowingTable
from profiler.tables.table import Table


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """What the simulated device is told to do, as it is told."""
    found: list[Job] = []
    run = SimulatedRunner.run

    def noted(self: SimulatedRunner, job: Job) -> Iterator[RunEvent]:
        found.append(job)
        return run(self, job)

    monkeypatch.setattr(SimulatedRunner, "run", noted)
    return found


@pytest.fixture
def target(tmp_path: Path) -> Target:
    (tmp_path / "script.toml").write_text('seed = 1\n[runtimes]\nlitert = "2.3.0"\nonnxruntime = "1.31.0"\n')
    return Target(f"fake:{tmp_path / 'script.toml'}", "litert")


@pytest.fixture
def settings(quick: TimingSettings) -> TimingSettings:
    """Unlike the defaults in what the tests compare; the device's time is simulated."""
    return replace(quick, min_round_s=0.3, measurement_ms=3.0, network_rounds=4)


@pytest.fixture
def table(tmp_path: Path, target: Target, settings: TimingSettings) -> Table:
    return build([PLAN], target, tmp_path / "t.parquet", settings=settings, stop=FEW)


def test_a_build_looks_at_its_reference_layer(jobs: list[Job], table: Table) -> None:
    assert jobs[-1].reference in {layer.key for layer in table.rows}


def test_a_file_is_measured_as_the_table_it_is_held_against(jobs: list[Job], table: Table, target: Target, tmp_path: Path) -> None:
    built = jobs[-1].settings
    path = tmp_path / "network.tflite"
    path.write_bytes(FORMATS["tflite"].write(NETWORK))
    jobs.clear()
    measured = measure_files([path], target, settings=table.info.settings)[path]
    assert measured.estimate.rounds >= built.network_rounds
    assert all(job.reference is not None for job in jobs)
    assert {replace(job.settings, min_round_s=0.0) for job in jobs} == {replace(built, min_round_s=0.0)}
    assert {job.settings.min_round_s for job in jobs} == {FEW_MODELS_LONGER * built.min_round_s}


def test_a_spot_check_measures_as_the_build_did(jobs: list[Job], table: Table, target: Target) -> None:
    built = jobs[-1].settings
    jobs.clear()
    assert spot_check(table, PLAN, target).differences == ()
    assert {job.reference for job in jobs} <= {layer.key for layer in table.rows}
    assert {replace(job.settings, min_round_s=0.0) for job in jobs} == {replace(built, min_round_s=0.0)}


@pytest.fixture
def run(tmp_path: Path, table: Table) -> Path:
    """A run with the table and its original network only."""
    info = replace(INFO, budgets=("latency=70%",), tables={"": TableFacts.of(tmp_path / "t.parquet", table)})
    graph = traced()
    with RunFolder.create(tmp_path / "run", info, graph) as folder:
        table.save(folder.table_path())
        save_weights(OPTIONS.build(), folder.weights_path("original.pt"))
        result = Result(Candidate(0, graph.widths, {"latency": 1.0}), 0.5, "original.pt")
        folder.add_step(Step(0, graph.widths, {"latency": 1.0}, 0.5, "original.pt", (result,)))
    return folder.path


@pytest.mark.slow
def test_an_exported_file_is_measured_as_the_run_s_table(jobs: list[Job], run: Path) -> None:
    built = jobs[-1].settings
    jobs.clear()
    assert export(ExportRequest(run, "tflite", measure=True), Silent()).file.latency_ms is not None
    assert {replace(job.settings, min_round_s=0.0) for job in jobs} == {replace(built, min_round_s=0.0)}


@pytest.mark.slow
def test_an_exported_file_for_another_runtime_than_the_table_s_is_measured_by_default(jobs: list[Job], run: Path) -> None:
    jobs.clear()
    assert export(ExportRequest(run, "onnx", measure=True), Silent()).file.latency_ms is not None
    assert {job.settings.measurement_ms for job in jobs} == {TimingSettings().measurement_ms}


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def say(self, text: str) -> None:
        self.texts.append(text)


SLOW = "[slow]\nevery_s = 1\nfor_s = 1\npercent = 60\n"
"""At any time."""


def test_a_winner_measured_while_the_device_is_slow_tells_nothing_of_the_table(run: Path, target: Target, tmp_path: Path) -> None:
    script = Path(target.device.removeprefix("fake:"))
    quiet = script.read_text()
    with RunFolder.open(run, write=True) as folder:
        check = DeviceCheck(RunModels(folder), {"latency": GrowingTable(tmp_path / "t.parquet")}, said := Heard())
        (step,) = folder.steps
        (folder.exports / "step000.tflite").write_bytes(FORMATS["tflite"].write(folder.graph))
        before = check(step)["latency"]
        script.write_text(quiet + SLOW)
        assert check(step) == {}
        assert "warning: step 0 was not measured for latency: the device was 60 % slower than for other steps" in said.texts
        script.write_text(quiet)
        assert check(step)["latency"].ratio == pytest.approx(before.ratio, rel=0.02)


def test_a_winner_is_measured_again_once_the_device_is_quiet(
    run: Path, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Path(target.device.removeprefix("fake:"))
    quiet = script.read_text()
    told: list[Job] = []
    simulated = SimulatedRunner.run

    def slow_at_first(self: SimulatedRunner, job: Job) -> Iterator[RunEvent]:
        told.append(job)
        yield from simulated(self, job)
        script.write_text(quiet)

    with RunFolder.open(run, write=True) as folder:
        check = DeviceCheck(RunModels(folder), {"latency": GrowingTable(tmp_path / "t.parquet")}, Silent())
        (step,) = folder.steps
        (folder.exports / "step000.tflite").write_bytes(FORMATS["tflite"].write(folder.graph))
        before = check(step)["latency"]
        monkeypatch.setattr(SimulatedRunner, "run", slow_at_first)
        script.write_text(quiet + SLOW)
        assert check(step)["latency"].ratio == pytest.approx(before.ratio, rel=0.02)
    assert len(told) > 1


def test_the_first_winner_that_takes_longer_than_predicted_is_measured_once_more(
    run: Path, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Path(target.device.removeprefix("fake:"))
    quiet = script.read_text()
    simulated = SimulatedRunner.run

    def slow_at_first(self: SimulatedRunner, job: Job) -> Iterator[RunEvent]:
        yield from simulated(self, job)
        script.write_text(quiet)

    with RunFolder.open(run, write=True) as folder:
        tables = {"latency": GrowingTable(tmp_path / "t.parquet")}
        (step,) = folder.steps
        (folder.exports / "step000.tflite").write_bytes(FORMATS["tflite"].write(folder.graph))
        before = DeviceCheck(RunModels(folder), tables, Silent())(step)["latency"]
        monkeypatch.setattr(SimulatedRunner, "run", slow_at_first)
        script.write_text(quiet + SLOW)
        assert DeviceCheck(RunModels(folder), tables, Silent())(step)["latency"].ratio == pytest.approx(before.ratio, rel=0.02)


def test_a_layer_that_failed_is_tried_again_after_a_refresh() -> None:
    layer = conv2d((1, 8, 8, 8), 8, 1)
    state = MeasurementState.of(
        [
            Hello(protocol=5, version="1", device=DeviceFacts(), flags={}),
            LayerAdded(layer.key, layer),
            Failed(layer.key, 0, "no room"),
        ]
    )
    assert state.failed == {layer.key: "no room"}
    state.see(Refresh((layer.key,)))
    assert state.failed == {}
