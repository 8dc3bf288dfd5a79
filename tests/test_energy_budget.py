"""Networks adapted to the energy of an accelerator and to the latency of a device, each priced by both tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from graphs import mobilenet_v1
from sample_run import FACTS, INFO, made_up_training
from typer.testing import CliRunner

from netadapt.cli.app import app
from netadapt.reporting.report import write_report
from netadapt.resources import open_goals, parse_budgets
from netadapt.runs.prices import prices_by_table
from netadapt.runs.run_folder import RunFolder
from netadapt.runs.targets import choose_target
from netadapt.search.loop import adapt
from netadapt.search.types import AdaptSettings
from profiler.formats.fake import layer_ns
from profiler.interval import Interval
from profiler.latency.validation import HeldOutError, HeldOutNetwork
from profiler.layers.graph import Graph
from profiler.measure.estimate import Estimate
from profiler.protocol.settings import Target, TimingSettings
from profiler.runtimes import MODELLED_RUNTIME
from profiler.tables.build_modelled import build_modelled
from profiler.tables.plan import Plan, read_plan
from profiler.tables.predictor import Predictor
from profiler.tables.sampling import corners_of
from profiler.tables.table import Table, TableInfo, load_table

GRAPH = mobilenet_v1(0.5, 64, classes=10, pairs=6)
DEVICE, CHIP = FACTS, replace(FACTS, device="model:eyeriss", runtime=MODELLED_RUNTIME)


def device_table(graph: Graph, path: Path) -> None:
    """A made-up table of a device on which layers cost what the fake runtime takes."""
    rows = {layer: exact(layer_ns(layer) / 1e6 + 1e-4) for layer in corners_of(Plan(graph), {})}
    held_out = HeldOutError.of([HeldOutNetwork("held out", Interval(1.0, 0.9, 1.1), 1.0, 1.0)])
    Table(rows, TableInfo(Target(), {"version": "0"}, TimingSettings(), "2026-01-01T00:00:00+00:00", held_out=held_out)).save(path)


def exact(latency_ms: float) -> Estimate:
    return Estimate(Interval(latency_ms, latency_ms, latency_ms), 6, 100, 6)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tables")
    device_table(GRAPH, folder / "pc.parquet")
    build_modelled([Plan(GRAPH)], "model:eyeriss", folder / "chip.parquet")
    return {"pc": folder / "pc.parquet", "chip": folder / "chip.parquet"}


def adapted(path: Path, tables: dict[str, Path], budget: str) -> RunFolder:
    """A run with a made-up training; both tables are its own, whichever its budget names."""
    loaded = {name: load_table(table) for name, table in tables.items()}
    info = replace(INFO, budgets=(budget,), tables={"pc": DEVICE, "chip": CHIP})
    run = RunFolder.create(path, info, GRAPH)
    for name, table in tables.items():
        run.table_path(name).write_bytes(table.read_bytes())
    goals = open_goals(parse_budgets([budget], loaded), loaded)
    for step in adapt(GRAPH, goals, run.recorded(made_up_training(run)), AdaptSettings(step=0.1)):
        run.add_step(step)
    return run


@pytest.fixture(scope="module")
def runs(tables: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """One to half of the chip's energy, one to 60 % of the device's latency."""
    folder = tmp_path_factory.mktemp("runs")
    return {name: adapted(folder / name, tables, budget) for name, budget in (("energy", "chip.energy=50%"), ("latency", "pc=60%"))}


def test_steps_are_priced_by_tables_that_no_budget_names(runs: dict[str, RunFolder], tables: dict[str, Path]) -> None:
    device, chip = prices_by_table(runs["energy"])
    last = runs["energy"].steps[-1]
    graph = GRAPH.at_widths(last.widths)
    assert (device.table, device.modelled, chip.table, chip.modelled) == ("pc", False, "chip", True)
    assert chip.energy_mj[-1] == pytest.approx(last.price)
    assert device.latency_ms[-1] == pytest.approx(Predictor(load_table(tables["pc"])).predict(graph).latency_ms.value)
    assert set(device.energy_mj) == {None}


def test_each_network_is_within_its_own_budget_and_their_shapes_differ(runs: dict[str, RunFolder]) -> None:
    (_, by_energy), (by_latency, _) = prices_by_table(runs["energy"]), prices_by_table(runs["latency"])
    assert by_energy.energy_mj[-1] is not None
    assert by_latency.latency_ms[-1] is not None
    assert by_energy.energy_mj[-1] <= 0.5 * (by_energy.energy_mj[0] or 0)
    assert by_latency.latency_ms[-1] <= 0.6 * (by_latency.latency_ms[0] or 0)
    assert runs["energy"].steps[-1].widths != runs["latency"].steps[-1].widths


def test_the_report_has_every_step_by_every_table_with_its_share_of_the_original(runs: dict[str, RunFolder]) -> None:
    page = write_report(runs["energy"]).read_text()
    section = page.partition("Every step by every table")[2].partition("</section>")[0]
    device, chip = prices_by_table(runs["energy"])
    for figure in (device.latency_ms[-1], chip.latency_ms[-1], chip.energy_mj[-1]):
        assert f"{figure:.4g}" in section
    assert f"{100 * (device.latency_ms[-1] or 0) / (device.latency_ms[0] or 1):.1f} %" in section
    assert "chip is modelled, not measured" in section


def test_the_report_of_a_run_with_the_table_of_one_device_has_no_such_section(tmp_path: Path, tables: dict[str, Path]) -> None:
    info = replace(INFO, budgets=("latency=60%",), tables={"": DEVICE})
    with RunFolder.create(tmp_path / "run", info, GRAPH) as run:
        run.table_path().write_bytes(tables["pc"].read_bytes())
        goals = open_goals(parse_budgets(["latency=60%"]), {"": load_table(tables["pc"])})
        run.add_step(next(iter(adapt(GRAPH, goals, run.recorded(made_up_training(run)), AdaptSettings()))))
        assert "Every step by every table" not in write_report(run).read_text()


def test_steps_that_were_adapted_to_energy_are_measured_on_the_device_of_the_other_table(runs: dict[str, RunFolder]) -> None:
    target, table = choose_target(runs["energy"])
    assert target == Target()
    assert table == runs["energy"].table_path("pc")


@pytest.mark.slow
def test_a_run_of_the_command_to_energy_and_one_to_latency_differ_and_are_priced_on_both(tmp_path: Path) -> None:
    network = ["mobilenet_v1", "--width-multiplier", "0.25", "--resolution", "32"]

    def command(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    command("plan", *network, "--classes", 10, "--out", tmp_path / "plan.json")
    plan = read_plan(tmp_path / "plan.json")
    device_table(plan.graph, tmp_path / "pc.parquet")
    build_modelled([plan], "model:eyeriss", tmp_path / "chip.parquet")
    both = ("--table", f"pc={tmp_path / 'pc.parquet'}", "--table", f"chip={tmp_path / 'chip.parquet'}", "--no-measure")
    quick = ("--data", "digits", "--epochs", 0.25, "--short-term-steps", 1, "--step", 0.15, "--no-dry-run")
    widths: list[dict[str, Any]] = []
    for name, budget in (("energy", "chip.energy=70%"), ("latency", "pc=70%")):
        command("run", *network, *quick, *both, "--budget", budget, "--out", tmp_path / name)
        widths.append(json.loads(command("history", tmp_path / name, "--json"))[-1]["widths"])
        command("report", tmp_path / name)
        assert "Every step by every table" in (tmp_path / name / "report.html").read_text()
    assert widths[0] != widths[1]
    with RunFolder.open(tmp_path / "energy") as by_energy, RunFolder.open(tmp_path / "latency") as by_latency:
        (_, chip), (device, _) = prices_by_table(by_energy), prices_by_table(by_latency)
    assert (chip.energy_mj[-1] or 0) <= 0.7 * (chip.energy_mj[0] or 0)
    assert (device.latency_ms[-1] or 0) <= 0.7 * (device.latency_ms[0] or 0)
