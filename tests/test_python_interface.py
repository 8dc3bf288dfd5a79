"""The Python interface of the profiler: what the commands do, as functions."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from graphs import mobilenet_v1

import profiler
from device_agents.device_lock import device_lock
from device_agents.errors import DeviceBusy
from device_agents.local import LocalAgent
from profiler.formats.model_file import FORMATS
from profiler.layers.graph import Graph
from profiler.protocol.journal import journal_path
from profiler.protocol.settings import TimingSettings
from profiler.tables.build import StopCriterion
from profiler.tables.plan import make_plan, write_plan

NETWORK = mobilenet_v1(0.5, 16, classes=10, pairs=2)
FEW = StopCriterion(max_layers=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interface")
    write_plan(make_plan(NETWORK), folder / "plan.json")
    (folder / "model.onnx").write_bytes(FORMATS["onnx"].write(NETWORK))
    return folder


@pytest.fixture(scope="module")
def table(folder: Path, quick: TimingSettings) -> profiler.LatencyTable:
    return profiler.build(folder / "plan.json", folder / "t.parquet", runtime="fake", settings=quick, stop=FEW, progress=False)


def test_a_table_is_built_and_loaded_again(table: profiler.LatencyTable, folder: Path) -> None:
    loaded = profiler.load_table(str(folder / "t.parquet"))
    assert loaded.table.rows == table.table.rows
    assert loaded.held_out.networks == table.held_out.networks > 0
    assert journal_path(table.path).exists()


def test_a_network_is_predicted_as_a_graph(table: profiler.LatencyTable) -> None:
    found = table.predict(NETWORK)
    assert found.latency_ms.value > 0 and not found.missing
    assert found.frame()["latency_ms"].sum() == pytest.approx(found.latency_ms.value)
    assert list(found.frame()["source"].unique()) == ["measured"]


def test_layers_of_a_table_are_a_data_frame(table: profiler.LatencyTable) -> None:
    assert len(table.layers) == len(table.table.rows)
    assert {"key", "latency_ms", "macs"} <= set(table.layers.columns)


def test_a_table_of_an_accelerator_is_computed_with_energies(folder: Path) -> None:
    table = profiler.build(folder / "plan.json", folder / "m.parquet", "model:eyeriss", progress=False)
    assert table.table.info.modelled
    assert table.layers["energy_mj"].min() > 0
    assert table.predict(NETWORK).latency_ms.value > 0


def test_a_plan_that_is_measured_needs_a_runtime(folder: Path) -> None:
    with pytest.raises(profiler.ToolError, match="a plan can be measured with any; name one, such as litert or onnxruntime"):
        profiler.build(folder / "plan.json", folder / "none.parquet", progress=False)
    assert not (folder / "none.parquet").exists()


def test_the_runtime_is_by_default_the_usual_one_of_the_model_files(folder: Path, quick: TimingSettings) -> None:
    table = profiler.build(folder / "model.onnx", folder / "usual.parquet", settings=quick, progress=False)
    assert table.table.info.target.runtime == "onnxruntime"


def unknown() -> Graph:
    return mobilenet_v1(0.5, 24, classes=10, pairs=2)


def test_missing_layers_are_an_error(table: profiler.LatencyTable) -> None:
    with pytest.raises(profiler.ToolError, match="not in the fake table"):
        table.predict(unknown())


def test_missing_layers_of_a_file_are_measured_when_that_is_asked_for(folder: Path, quick: TimingSettings) -> None:
    table = profiler.build(folder / "model.onnx", folder / "o.parquet", runtime="onnxruntime", settings=quick, progress=False)
    other = folder / "other.onnx"
    other.write_bytes(FORMATS["onnx"].write(mobilenet_v1(0.5, 16, classes=11, pairs=2)))
    with pytest.raises(profiler.ToolError, match="measure_missing=True adds them"):
        table.predict(other, progress=False)
    assert not table.predict(other, measure_missing=True, progress=False).missing
    assert len(profiler.load_table(table.path).table.rows) > len(table.table.rows)


def test_a_partial_prediction_names_what_it_leaves_out(table: profiler.LatencyTable) -> None:
    found = table.predict(unknown(), partial=True)
    assert found.missing
    assert "are missing and left out" in found._repr_html_()


def test_a_table_shows_itself_in_a_notebook(table: profiler.LatencyTable) -> None:
    shown = table._repr_html_()
    assert "held-out network" in shown and "<img" in shown and "simulated, not measured" in shown


def test_a_stale_table_is_told(table: profiler.LatencyTable, tmp_path: Path) -> None:
    old = replace(table.table.info, created_utc="2020-01-01T00:00:00+00:00", validated_utc="2020-01-01T00:00:00+00:00")
    replace(table.table, info=old).save(tmp_path / "old.parquet")
    stale = profiler.load_table(tmp_path / "old.parquet")
    assert stale.stale is not None and stale.stale in stale._repr_html_()
    with pytest.warns(profiler.StaleTable, match="old.parquet is stale"):
        stale.predict(NETWORK)


def test_a_model_file_is_measured(folder: Path, quick: TimingSettings) -> None:
    found = profiler.benchmark(folder / "model.onnx", settings=quick, progress=False)
    assert found.latency_ms.low <= found.latency_ms.value <= found.latency_ms.high
    assert found.hello.runtime == "onnxruntime"


def test_a_file_that_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("nothing")
    with pytest.raises(profiler.ToolError):
        profiler.benchmark(tmp_path / "m.onnx", progress=False)
    with pytest.raises(profiler.ToolError, match="there is no table"):
        profiler.load_table(tmp_path / "t.parquet")


def test_the_package_imports_nothing_heavy_before_it_is_used() -> None:
    code = "import sys, profiler; print(sorted({'numpy', 'pandas', 'onnx', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_that_the_package_promises_is_there() -> None:
    assert all(getattr(profiler, name) is not None for name in profiler.__all__)
    with pytest.raises(AttributeError, match="no attribute 'predict_everything'"):
        profiler.predict_everything  # noqa: B018


def test_a_device_that_another_run_measures_is_told_with_how_to_wait_in_python(folder: Path, quick: TimingSettings) -> None:
    with device_lock(LocalAgent()), pytest.raises(DeviceBusy, match=r"wait for it, or give wait_s, the seconds to wait$"):
        profiler.benchmark(folder / "model.onnx", settings=quick, progress=False)
