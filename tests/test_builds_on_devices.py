"""Whole builds on devices by name: broken links, lost devices, made-up ones, energy."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import ai_edge_litert
import pytest
from adbd import Adbd
from graphs import mobilenet_v1

from profiler.devices.fleet import on_each
from profiler.measure.discovery import roster
from profiler.progress import ProgressReporter, Silent
from profiler.protocol.events import JournalEvent, Measurement, Paused
from profiler.protocol.journal import journal_path, read_journal
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.build import StopCriterion, build
from profiler.tables.plan import make_plan
from profiler.tables.table import Table, load_table
from profiler.tables.trust import trust_sentence

SCRIPT = 'seed = 1\n[runtimes]\nlitert = "2.3.0"\n'
PLAN = make_plan(mobilenet_v1(0.5, 16, classes=10, pairs=3))
FEW = StopCriterion(max_layers=1)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that names devices, in force."""
    path = tmp_path / "profile.toml"
    monkeypatch.setenv("PROFILE_CONFIG", str(path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path


def built(folder: Path, names: list[str], quick: TimingSettings) -> dict[str, Any]:
    def work(name: str, progress: ProgressReporter) -> Table:
        return build([PLAN], Target(name, "fake"), folder / f"{name}.parquet", settings=quick, stop=FEW, progress=progress)

    progress: dict[str, ProgressReporter] = {name: Silent() for name in names}
    return on_each(names, work, progress)


def journal(folder: Path, name: str) -> list[JournalEvent]:
    return list(read_journal(journal_path(folder / f"{name}.parquet")))


@pytest.mark.slow
def test_a_build_goes_on_after_its_link_was_cut(config: Path, tmp_path: Path, quick: TimingSettings) -> None:
    with Adbd() as phone:
        config.write_text(f'[devices.phone]\naddress = "adb:{phone.host}:{phone.port}"\nfolder = "{tmp_path}"\n')
        phone.faults.cut_after_sent = 60_000  # some way into the measurements
        table = built(tmp_path, ["phone"], quick)["phone"]
    assert isinstance(table, Table)
    events = journal(tmp_path, "phone")
    seen = [(event.model, event.round) for event in events if isinstance(event, Measurement)]
    assert len(seen) == len(set(seen))
    assert sum(isinstance(event, Paused) for event in events) == 1


def test_one_device_that_is_lost_does_not_stop_the_others(config: Path, tmp_path: Path, quick: TimingSettings) -> None:
    (tmp_path / "script.toml").write_text(SCRIPT)
    config.write_text(f'[devices.good]\naddress = "fake:{tmp_path}/script.toml"\n[devices.gone]\naddress = "adb:127.0.0.1:1"\n')
    found = built(tmp_path, ["gone", "good"], quick)
    assert isinstance(found["good"], Table)
    assert "cannot be reached" in str(found["gone"])
    assert not (tmp_path / "gone.parquet").exists()


def test_a_table_of_a_device_that_does_not_exist_says_so(config: Path, tmp_path: Path, quick: TimingSettings) -> None:
    (tmp_path / "script.toml").write_text(SCRIPT)
    config.write_text(f'[devices.good]\naddress = "fake:{tmp_path}/script.toml"\n')
    table = built(tmp_path, ["good"], quick)["good"]
    assert trust_sentence(table).startswith("simulated, not measured")


def test_energy_is_stored_beside_latency_where_the_device_tells_it(config: Path, tmp_path: Path, quick: TimingSettings) -> None:
    (tmp_path / "script.toml").write_text(SCRIPT + "[energy]\nidle_w = 1.0\nbusy_w = 3.0\n")
    config.write_text(f'[devices.good]\naddress = "fake:{tmp_path}/script.toml"\n')
    out = tmp_path / "t.parquet"
    table = build([PLAN], Target("good", "fake"), out, settings=quick, stop=FEW, energy=True)
    for layer, energy_mj in table.energy_mj.items():
        assert energy_mj == pytest.approx(2.0 * table.rows[layer].latency_ms.value, rel=0.05)  # two watts above idle
    assert len(table.energy_mj) == len(table.rows)
    assert load_table(out).energy_mj == table.energy_mj


def test_a_device_without_a_counter_has_no_energy(config: Path, tmp_path: Path, quick: TimingSettings) -> None:
    (tmp_path / "script.toml").write_text(SCRIPT)
    config.write_text(f'[devices.good]\naddress = "fake:{tmp_path}/script.toml"\n')
    table = build([PLAN], Target("good", "fake"), tmp_path / "t.parquet", settings=quick, stop=FEW, energy=True)
    assert table.energy_mj == {}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("busybox") is None, reason="needs busybox; on Debian: apt install busybox")
def test_a_phone_without_python_is_measured_by_the_native_runner(config: Path, tmp_path: Path, quick: TimingSettings) -> None:
    """Its programs are busybox's and nothing else, its real runtime is the one that is installed here."""
    programs = tmp_path / "bin"
    programs.mkdir()
    subprocess.run(["busybox", "--install", "-s", str(programs)], check=True)
    (library,) = Path(str(ai_edge_litert.__file__)).parent.glob("libLiteRt.so")
    with Adbd(environment={"PATH": str(programs)}) as phone:
        config.write_text(
            f'[devices.phone]\naddress = "adb:{phone.host}:{phone.port}"\nfolder = "{tmp_path}"\nlibraries.litert = "{library}"\n'
        )
        (seen,) = [found for found in roster() if found.device.name == "phone"]
        out = tmp_path / "t.parquet"
        table = build([PLAN], Target("phone", "litert"), out, settings=quick, stop=FEW)
    assert seen.probe is not None
    assert seen.probe.runner == "native"
    assert seen.probe.runtimes["litert"].version
    assert table.info.device["runner"] == "native"
    assert set(table.info.rules.entries(PLAN.graph).layers) <= set(table.rows)
