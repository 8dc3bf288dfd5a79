"""Whole builds with the real runner and its fake runtime, which waits as long as the simulated device would take."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from graphs import mobilenet_v1

from device_agents.errors import DeviceError
from device_agents.support.errors import ToolError
from profiler.errors import JournalError, LayerNotMeasured, TableError
from profiler.formats.fake import layer_ns, write_fake
from profiler.formats.model_file import FORMATS
from profiler.latency.validation import HeldOutError
from profiler.layers.execution import ExecutionRules
from profiler.layers.graph import Graph
from profiler.layers.layer import conv2d
from profiler.measure.state import MeasurementState
from profiler.protocol.events import Measurement
from profiler.protocol.journal import journal_path, read_journal
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.build import StopCriterion, build, extend
from profiler.tables.build_request import Builds, what_lacks
from profiler.tables.derive import table_of
from profiler.tables.plan import Plan, make_plan
from profiler.tables.predicting import FilePrediction
from profiler.tables.predictor import Predictor
from profiler.tables.table import load_table

FAKE = Target(runtime="fake")
NETWORK = mobilenet_v1(0.5, 16, classes=10, pairs=3)
PLAN = make_plan(NETWORK)
ENTRIES = ExecutionRules(FAKE.runtime).entries(NETWORK).layers
POISONED = ENTRIES[3]
FEW = StopCriterion(max_layers=1)
"""No layers beyond those that every table has: the sweeps, the corners and the network's own."""


def measurements(out: Path) -> list[tuple[str, int]]:
    return [(event.model, event.round) for event in read_journal(journal_path(out)) if isinstance(event, Measurement)]


@pytest.fixture(scope="module")
def first_table(tmp_path_factory: pytest.TempPathFactory, quick: TimingSettings) -> Path:
    """Built once; tests that change it take a copy."""
    out = tmp_path_factory.mktemp("first") / "t.parquet"
    build([PLAN], FAKE, out, settings=quick, stop=FEW)
    return out


@pytest.fixture
def built(first_table: Path, tmp_path: Path) -> Path:
    """A table and its journal of one's own."""
    shutil.copytree(first_table.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / first_table.name


def test_a_build_measures_the_layers_of_the_network_itself(first_table: Path) -> None:
    assert set(ENTRIES) <= set(load_table(first_table).rows)


def test_a_table_can_tell_the_latency_of_every_narrower_network(first_table: Path) -> None:
    predictor = Predictor(load_table(first_table))
    for widths in (*PLAN.fit, *PLAN.check, dict.fromkeys(NETWORK.widths, 8)):
        assert not predictor.explain(NETWORK.at_widths(widths)).missing


@pytest.mark.slow
def test_a_build_stops_adding_layers_when_the_error_is_low_enough(tmp_path: Path, quick: TimingSettings) -> None:
    rough = build([PLAN], FAKE, tmp_path / "rough.parquet", settings=quick, stop=StopCriterion(target_error_percent=100))
    fine = build(
        [PLAN], FAKE, tmp_path / "fine.parquet", settings=quick, stop=StopCriterion(target_error_percent=1e-6, max_layers=95)
    )
    assert len(rough.rows) < len(fine.rows) <= 95
    assert [step["layers"] for step in rough.info.progress] == [len(rough.rows)]
    assert len(fine.info.progress) > 1


@pytest.mark.parametrize("stop", [{"target_error_percent": 0}, {"max_layers": 0}])
def test_an_impossible_effort_is_refused(stop: dict[str, float]) -> None:
    with pytest.raises(TableError, match="cannot be built"):
        StopCriterion(**stop)  # type: ignore[arg-type]


def test_missing_layers_are_added_to_a_table_on_demand(built: Path) -> None:
    before = load_table(built)
    asked = conv2d((1, 5, 5, 7), 9, 3)
    after = extend(built, [asked])
    assert set(after.rows) == {*before.rows, asked}
    assert load_table(built).rows == after.rows


def test_a_table_without_its_journal_is_not_extended(built: Path) -> None:
    journal_path(built).unlink()
    with pytest.raises(TableError, match="no journal"):
        extend(built, [conv2d((1, 5, 5, 7), 9, 3)])


def test_a_layer_costs_what_the_device_takes_for_it(first_table: Path) -> None:
    for layer, found in load_table(first_table).rows.items():
        assert found.latency_ms.value >= layer_ns(layer) / 1e6


def test_the_held_out_is_measured_on_networks_that_were_not_fitted_on(first_table: Path) -> None:
    table = load_table(first_table)
    assert table.info.held_out.networks == 1 + len(PLAN.check)
    assert table.info.calibration.networks == len(PLAN.fit)


def test_the_table_can_be_made_again_from_its_journal(first_table: Path) -> None:
    table = load_table(first_table)
    again = table_of(MeasurementState.of(read_journal(journal_path(first_table))))
    assert again.rows == table.rows
    assert again.info.held_out == table.info.held_out


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path: Path, quick: TimingSettings) -> None:
    out = tmp_path / "t.parquet"

    class Impatient:
        def begin(self, what: str, total: int) -> None:
            self.left = total // 2

        def advance(self, note: str = "") -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

        def say(self, text: str) -> None:
            pass

    with pytest.raises(KeyboardInterrupt):
        build([PLAN], FAKE, out, settings=quick, stop=FEW, progress=Impatient())
    assert not out.exists()
    before = measurements(out)
    build([PLAN], FAKE, out, settings=quick, stop=FEW, resume=True)
    after = measurements(out)
    assert after[: len(before)] == before
    assert len(after) == len(set(after))
    layers = [key for key, _ in after if not key.startswith("network ")]
    assert {layers.count(key) for key in layers} == {quick.rounds}


def test_a_build_that_was_interrupted_is_not_overwritten(built: Path, quick: TimingSettings) -> None:
    built.unlink()
    before = journal_path(built).read_bytes()
    with pytest.raises(JournalError, match="--resume"):
        build([PLAN], FAKE, built, settings=quick, stop=FEW)
    assert journal_path(built).read_bytes() == before


def test_what_the_table_holds_is_not_measured_again(built: Path, quick: TimingSettings) -> None:
    before = measurements(built)
    build([PLAN], FAKE, built, settings=quick, stop=FEW)
    assert measurements(built) == before


def test_a_table_grows_by_what_is_not_in_it(built: Path, quick: TimingSettings) -> None:
    before = load_table(built)
    other = mobilenet_v1(0.25, 16, classes=10, pairs=1)
    table = build([Plan(other)], FAKE, built, settings=quick, stop=FEW)
    assert set(table.rows) >= {*before.rows, *ExecutionRules(FAKE.runtime).entries(other).layers}


def test_a_table_measured_with_other_threads_is_not_mixed_in(built: Path, quick: TimingSettings) -> None:
    before = built.read_bytes()
    with pytest.raises(JournalError, match="threads"):
        build([PLAN], Target(runtime="fake", threads=2), built, settings=quick, stop=FEW)
    assert built.read_bytes() == before


def test_a_table_of_an_updated_runtime_is_not_mixed_in(built: Path, quick: TimingSettings) -> None:
    journal = journal_path(built)
    journal.write_text(journal.read_text().replace('"version":"0"', '"version":"0.1"'))
    with pytest.raises(JournalError, match="has changed"):
        build([Plan(mobilenet_v1(0.25, 16, pairs=1))], FAKE, built, settings=quick, stop=FEW)


def write_poisoned(graph: Graph, seed: int = 0) -> bytes:
    """One layer takes the runtime down."""
    if graph.layers == (POISONED,):
        return json.dumps({"latency_ns": 1, "crash": True}).encode()
    return write_fake(graph, seed)


def test_a_layer_that_crashes_the_runtime_is_noted_and_the_rest_measured(
    tmp_path: Path, quick: TimingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "json", replace(FORMATS["json"], writer="test_build:write_poisoned"))
    table = build([PLAN], FAKE, tmp_path / "t.parquet", settings=quick, stop=FEW)
    assert POISONED not in table.rows
    assert set(table.rows) >= set(ENTRIES) - {POISONED}
    assert list(table.info.failed) == [POISONED.key]


def test_a_build_that_could_not_measure_a_layer_says_so_and_keeps_the_table(
    tmp_path: Path, quick: TimingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "json", replace(FORMATS["json"], writer="test_build:write_poisoned"))
    out = tmp_path / "t.parquet"
    table = build([PLAN], FAKE, out, settings=quick, stop=FEW)
    with pytest.raises(
        ToolError, match=rf"t\.parquet is kept, but the layer {re.escape(POISONED.key)} could not be measured \(it takes"
    ):
        Builds({out: table}).check()
    assert load_table(out).rows


def test_the_advice_for_a_layer_that_could_not_be_measured_is_not_to_measure_it_again(
    tmp_path: Path, quick: TimingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "json", replace(FORMATS["json"], writer="test_build:write_poisoned"))
    table = build([PLAN], FAKE, tmp_path / "t.parquet", settings=quick, stop=FEW)
    with pytest.raises(LayerNotMeasured) as told:
        Predictor(table).predict(NETWORK)
    assert "could not be measured" in str(told.value) and "profile build" not in str(told.value)
    prediction = Predictor(table).explain(NETWORK)
    said = FilePrediction(Path("m.json"), tmp_path / "t.parquet", table, prediction, False).way_out
    assert "could not be measured" in said and "adds them" not in said


def test_a_table_whose_networks_cannot_be_checked_says_so(tmp_path: Path, quick: TimingSettings) -> None:
    table = build([PLAN], FAKE, tmp_path / "t.parquet", settings=quick, stop=FEW)
    assert what_lacks(table) is None
    assert "no whole network could be checked" in str(what_lacks(table.with_held_out(HeldOutError.of(()))))


def test_a_whole_network_that_could_not_be_run_is_said_before_layers(tmp_path: Path, quick: TimingSettings) -> None:
    table = build([PLAN], FAKE, tmp_path / "t.parquet", settings=quick, stop=FEW)
    failed = {"relu_x": "it hangs", "network small": "out of memory", "network small 8": "out of memory", "empty call": "no"}
    said = str(what_lacks(replace(table, info=replace(table.info, failed=failed))))
    assert said.startswith("the network small could not be measured (out of memory), and 1 more and the layer relu_x could not")
    assert "empty call" not in said


def test_what_a_table_without_its_journal_lacks_is_not_promised_to_be_added(tmp_path: Path, quick: TimingSettings) -> None:
    out = tmp_path / "t.parquet"
    table = build([PLAN], FAKE, out, settings=quick, stop=FEW)
    prediction = Predictor(table).explain(mobilenet_v1(0.25, 48, pairs=2))
    found = FilePrediction(Path("a model.json"), out, table, prediction, False)
    assert prediction.missing and f"profile predict {out} 'a model.json' --measure-missing` adds them" in found.way_out
    journal_path(out).unlink()
    assert "no journal beside it" in found.way_out and "--measure-missing" not in found.way_out


def test_a_build_that_never_started_leaves_nothing_behind(tmp_path: Path, quick: TimingSettings) -> None:
    with pytest.raises(DeviceError, match="no-such-python"):
        build([PLAN], Target(runtime="fake", python="no-such-python"), tmp_path / "t.parquet", settings=quick, stop=FEW)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["t.txt", "nowhere/t.parquet"])
def test_an_impossible_table_name_is_told_before_anything_is_measured(tmp_path: Path, quick: TimingSettings, name: str) -> None:
    with pytest.raises(TableError, match="cannot become a table"):
        build([PLAN], FAKE, tmp_path / name, settings=quick, stop=FEW)
    assert not list(tmp_path.iterdir())
