"""Several budgets, rungs and measured winners through the commands, with tiny networks and tables of made-up devices."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from test_netadapt_cli import NETWORK, QUICK, plan, run, succeed, table

from device_agents.device_lock import device_lock
from device_agents.local import LocalAgent
from netadapt.runs.device_check import out_of_reach
from netadapt.runs.run_folder import RunFolder
from profiler.measure.opening import open_session
from profiler.progress import Silent
from profiler.protocol.settings import Target
from profiler.tables.table import Table, load_table

__all__ = ["plan", "table"]  # fixtures
pytestmark = pytest.mark.usefixtures("traced_once")


@pytest.fixture(scope="module")
def here(table: Path) -> Path:
    """The same table, said to be made on this machine with the runtime it has."""
    loaded = load_table(table)
    with open_session(Target()) as session:
        probe, state = session.probe(), dict(session.conditioning.state) if session.conditioning else {}
    device = {"device": asdict(probe.device), "version": probe.runtimes["onnxruntime"].version, "conditioning": state}
    path = table.with_name("here.parquet")
    Table(loaded.rows, replace(loaded.info, device=device)).save(path)
    return path


def test_a_table_of_another_device_is_not_measured_against(table: Path) -> None:
    why = out_of_reach(load_table(table), Silent()) or ""
    assert why.startswith("the device that answers at local is not the one the table was made on (runtime version: 0 and ")


def test_a_device_that_another_run_measures_on_is_waited_for(here: Path) -> None:
    taken = threading.Event()

    def another_run() -> None:
        with device_lock(LocalAgent()):
            taken.set()
            time.sleep(1)

    other = threading.Thread(target=another_run)
    other.start()
    assert taken.wait(10)
    assert out_of_reach(load_table(here), Silent()) is None
    other.join()


def test_a_device_that_is_not_there_is_out_of_reach(table: Path) -> None:
    loaded = load_table(table)
    gone = Table(loaded.rows, replace(loaded.info, target=Target("fake:nowhere.toml")))
    assert "nowhere.toml" in str(out_of_reach(gone, Silent()))


def test_a_table_of_this_machine_is_within_reach(here: Path) -> None:
    assert out_of_reach(load_table(here), Silent()) is None


def test_a_measurement_that_was_asked_for_and_cannot_be_is_refused_before_training(table: Path, tmp_path: Path) -> None:
    told = run(
        "run", *NETWORK, *QUICK, "--table", table, "--budget", "latency=75%", "--out", tmp_path / "run", "--measure"
    )  # fmt: skip
    assert told.exit_code == 1
    assert "--no-measure relies on the table alone" in told.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_winners_are_measured_where_the_tables_device_is_there(here: Path, tmp_path: Path) -> None:
    told = run(
        "run", *NETWORK, *QUICK, "--table", here, "--budget", "latency=92%", "--out", tmp_path / "run", "--max-iterations", 1
    )
    with RunFolder.open(tmp_path / "run") as folder:
        steps, info = folder.steps, folder.info
    assert all(step.checks["latency"].measured.value > 0 and step.bias["latency"] > 0 for step in steps)
    assert info.settings.measure is None
    for step in steps:
        assert ("warning: latency: measured" in told.stderr) or not step.misses


@pytest.mark.slow
def test_two_devices_and_memory_are_kept_to_at_once(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    budgets = ["--budget", "pixel=85%", "--budget", "jetson=90%", "--budget", "memory=100%", "--budget", "macs=80%"]
    devices = ["--table", f"pixel={table}", "--table", f"jetson={table}"]
    search = ["--select-by", "ratio", "--if-no-candidate", "join", "--successive-halving", "--no-measure"]
    said = json.loads(succeed("run", *NETWORK, *QUICK, *devices, *budgets, *search, "--out", out, "--json"))
    first, last = said["steps"][0]["prices"], said["steps"][-1]["prices"]
    for name, fraction in {"pixel": 0.85, "jetson": 0.9, "memory": 1.0, "macs": 0.8}.items():
        assert last[name] <= fraction * first[name]
    with RunFolder.open(out) as folder:
        search_settings = folder.info.settings.search
        chosen = search_settings.select_by, search_settings.if_no_candidate, search_settings.successive_halving
        assert chosen == ("ratio", "join", True)
        assert any(result.dropped for result in folder.steps[1].results)
        assert {path.name for path in (out / "weights").iterdir()} == {step.weights for step in folder.steps}
        assert (out / "table-jetson.parquet").exists()
    assert "macs" in succeed("history", out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--table", "pixel=TABLE", "--budget", "latency=75%"], "pixel=60%"),
        (["--table", "TABLE", "--budget", "latency=75%", "--budget", "energy=75%"], "--energy"),
        (["--budget", "macs=75%", "--select-by", "luck"], "--select-by must be accuracy or ratio"),
    ],
)
def test_bad_input_gets_one_sentence(table: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    told = run("run", *NETWORK, *QUICK, *(word.replace("TABLE", str(table)) for word in arguments), "--out", tmp_path / "run")
    assert told.exit_code == 1
    assert said in told.stderr
    assert not (tmp_path / "run").exists()
