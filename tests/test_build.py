"""Whole builds with the real runner and its fake runtime, which waits as long as the simulated device would take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from graphs import mobilenet_v1

from device_agents.errors import DeviceError
from profiler import build as build_module
from profiler.build import build
from profiler.errors import JournalError, TableError
from profiler.fake_model import layer_ns
from profiler.journal import journal_path, read_journal
from profiler.plan import Plan, make_plan
from profiler.results import table_from_journal
from profiler.settings import Target, TimingSettings
from profiler.table import load_table

FAKE = Target(runtime="fake")
NETWORK = mobilenet_v1(0.5, 16, classes=10, pairs=3)
PLAN = make_plan(NETWORK, fractions=(0.5, 1.0))


def visits(out: Path) -> list[tuple[str, int]]:
    return [(line["key"], line["round"]) for line in read_journal(journal_path(out)) if line["event"] == "visit"]


def test_a_build_measures_every_layer_of_the_plan(tmp_path: Path, quick: TimingSettings) -> None:
    out = tmp_path / "t.parquet"
    build([PLAN], FAKE, out, settings=quick)
    assert set(load_table(out).rows) == set(PLAN.layers)


def test_a_layer_costs_what_the_device_takes_for_it(tmp_path: Path, quick: TimingSettings) -> None:
    table = build([PLAN], FAKE, tmp_path / "t.parquet", settings=quick)
    for layer, found in table.rows.items():
        assert found.latency_ms >= layer_ns(layer) / 1e6


def test_the_closure_is_measured_on_networks_that_were_not_fitted_on(tmp_path: Path, quick: TimingSettings) -> None:
    table = build([PLAN], FAKE, tmp_path / "t.parquet", settings=quick)
    assert table.info.closure.networks == 1 + len(PLAN.check)
    assert table.info.calibration.networks == len(PLAN.fit)


def test_the_table_can_be_made_again_from_its_journal(tmp_path: Path, quick: TimingSettings) -> None:
    out = tmp_path / "t.parquet"
    table = build([PLAN], FAKE, out, settings=quick)
    again = table_from_journal(list(read_journal(journal_path(out))))
    assert again.rows == table.rows
    assert again.info.closure == table.info.closure


def test_an_interrupted_build_goes_on_where_it_stopped(tmp_path: Path, quick: TimingSettings) -> None:
    out = tmp_path / "t.parquet"

    class Impatient:
        def begin(self, what: str, total: int) -> None:
            self.left = total // 2

        def advance(self, note: str = "") -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build([PLAN], FAKE, out, settings=quick, progress=Impatient())
    assert not out.exists()
    before = visits(out)
    build([PLAN], FAKE, out, settings=quick, resume=True)
    after = visits(out)
    assert after[: len(before)] == before
    reference = max(set(after), key=after.count)
    others = [visit for visit in after if visit[0] != reference[0]]
    assert len(others) == len(set(others))
    assert len(set(after)) == (len(PLAN.layers) + 1 + len(PLAN.fit) + len(PLAN.check)) * quick.rounds


def test_a_build_that_was_interrupted_is_not_overwritten(tmp_path: Path, quick: TimingSettings) -> None:
    out = tmp_path / "t.parquet"
    build([PLAN], FAKE, out, settings=quick)
    out.unlink()
    before = journal_path(out).read_bytes()
    with pytest.raises(JournalError, match="--resume"):
        build([PLAN], FAKE, out, settings=quick)
    assert journal_path(out).read_bytes() == before


def test_what_the_table_holds_is_not_measured_again(tmp_path: Path, quick: TimingSettings) -> None:
    out = tmp_path / "t.parquet"
    build([PLAN], FAKE, out, settings=quick)
    before = visits(out)
    build([PLAN], FAKE, out, settings=quick)
    assert visits(out) == before


def test_a_table_grows_by_what_is_not_in_it(tmp_path: Path, quick: TimingSettings) -> None:
    out = tmp_path / "t.parquet"
    build([PLAN], FAKE, out, settings=quick)
    other = mobilenet_v1(0.25, 16, classes=10, pairs=1)
    table = build([Plan(other, {})], FAKE, out, settings=quick)
    assert set(table.rows) == set(PLAN.layers) | set(other.layers)


def test_a_table_measured_with_other_threads_is_not_mixed_in(tmp_path: Path, quick: TimingSettings) -> None:
    out = tmp_path / "t.parquet"
    build([PLAN], FAKE, out, settings=quick)
    before = out.read_bytes()
    with pytest.raises(JournalError, match="threads"):
        build([PLAN], Target(runtime="fake", threads=2), out, settings=quick)
    assert out.read_bytes() == before


def test_a_table_of_an_updated_runtime_is_not_mixed_in(tmp_path: Path, quick: TimingSettings) -> None:
    out = tmp_path / "t.parquet"
    build([PLAN], FAKE, out, settings=quick)
    journal = journal_path(out)
    journal.write_text(journal.read_text().replace('"version":"0"', '"version":"0.1"'))
    with pytest.raises(JournalError, match="has changed"):
        build([Plan(mobilenet_v1(0.25, 16, pairs=1), {})], FAKE, out, settings=quick)


def test_a_layer_that_crashes_the_runtime_is_noted_and_the_rest_measured(
    tmp_path: Path, quick: TimingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned = PLAN.layers[3]

    def poison(plan: Plan, target: Target) -> list[build_module.Job]:
        jobs = list(plan_jobs(plan, target))
        crash = json.dumps({"latency_ns": 1, "crash": True}).encode()
        return [build_module.Job(job.line, crash) if job.key == poisoned.key else job for job in jobs]

    plan_jobs = build_module.plan_jobs
    monkeypatch.setattr(build_module, "plan_jobs", poison)
    table = build([PLAN], FAKE, tmp_path / "t.parquet", settings=quick)
    assert set(table.rows) == set(PLAN.layers) - {poisoned}
    assert list(table.info.failed) == [poisoned.key]


def test_a_build_that_never_started_leaves_nothing_behind(tmp_path: Path, quick: TimingSettings) -> None:
    with pytest.raises(DeviceError, match="no-such-python"):
        build([PLAN], Target(runtime="fake", python="no-such-python"), tmp_path / "t.parquet", settings=quick)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["t.txt", "nowhere/t.parquet"])
def test_an_impossible_table_name_is_told_before_anything_is_measured(tmp_path: Path, quick: TimingSettings, name: str) -> None:
    with pytest.raises(TableError, match="cannot become a table"):
        build([PLAN], FAKE, tmp_path / name, settings=quick)
    assert not list(tmp_path.iterdir())
