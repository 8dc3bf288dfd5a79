"""Networks side by side on modelled accelerators: work and weights mislead, and what suits one does not suit another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from graphs import mobilenet_v1
from test_crossbar import DEEP, WIDE
from typer.testing import CliRunner, Result

from profiler.cli.app import app
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec, fully_connected
from profiler.modelled.breakdown import breakdown
from profiler.modelled.densities import Densities, LayerDensity, write_densities
from profiler.modelled.hardware import shipped_hardware
from profiler.modelled.model import open_model
from profiler.modelled.work import Work
from profiler.tables.plan import Plan, write_plan


def graph_of(name: str, network: list[Work]) -> Graph:
    """The layers, each of which reads an input of its own: what they cost together does not depend on what they read."""
    nodes, inputs = [], []
    for place, work in enumerate(network):
        geometry, channels, filters = work.geometry, int(work.inputs[0]), int(work.outputs[0])
        given = (1, geometry.in_height, geometry.in_width, channels)
        kernel = (geometry.kernel_height, geometry.kernel_width)
        padding = (kernel[0] // 2,) * 4
        layer = LayerSpec("conv2d", (given,), (1, geometry.out_height, geometry.out_width, filters), kernel, padding=padding)
        inputs.append((f"image_{place}", given))
        nodes.append(Node(f"conv_{place}", layer, (f"image_{place}",)))
    return Graph(name, tuple(inputs), tuple(nodes), tuple(node.name for node in nodes))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plans")
    write_plan(Plan(graph_of("deep", DEEP)), folder / "deep.json")
    write_plan(Plan(graph_of("wide", WIDE)), folder / "wide.json")
    write_plan(Plan(mobilenet_v1(0.25, 32, classes=10, pairs=3)), folder / "small.json")
    text = shipped_hardware()["pim_reram"].text.replace("cell_bits = 2", "cell_bits = 8").replace("dac_bits = 1", "dac_bits = 8")
    (folder / "large.toml").write_text(text.replace("rows = 128", "rows = 1024").replace("cols = 128", "cols = 1024"))
    return folder


@pytest.fixture(scope="module")
def printed(folder: Path) -> dict[str, Any]:
    devices = ("--device", "model:eyeriss", "--device", f"model:{folder / 'large.toml'}")
    result = run("estimate", folder / "deep.json", folder / "wide.json", *devices, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def on(printed: dict[str, Any], accelerator: str) -> list[dict[str, Any]]:
    """The deep network, then the wide one."""
    found = next(each for address, each in printed["accelerators"].items() if accelerator in address)
    return list(found["networks"].values())


def test_the_two_networks_have_as_much_work_and_the_wide_one_more_weights(printed: dict[str, Any]) -> None:
    deep, wide = printed["networks"].values()
    assert deep["macs"] / wide["macs"] == pytest.approx(1.01, abs=0.005)
    assert wide["parameters"] > 1.1 * deep["parameters"]


def test_large_arrays_of_cells_are_used_by_the_wide_network_as_counting_says(printed: dict[str, Any]) -> None:
    deep, wide = on(printed, "large")
    assert (deep["arrays"]["count"], wide["arrays"]["count"]) == (255, 120)
    assert deep["utilisation"] == pytest.approx(0.225, abs=0.001)
    assert wide["utilisation"] == pytest.approx(0.547, abs=0.001)
    assert deep["arrays"]["adc_conversions"] / 1e6 == pytest.approx(27.3, abs=0.1)
    assert wide["arrays"]["adc_conversions"] / 1e6 == pytest.approx(20.9, abs=0.1)
    assert wide["arrays"]["steps"] / deep["arrays"]["steps"] == pytest.approx(61 / 88, abs=0.01)


def test_what_the_wide_network_saves_differs_between_a_digital_array_and_analog_memory(printed: dict[str, Any]) -> None:
    ratios = {}
    for name in ("eyeriss", "large"):
        deep, wide = on(printed, name)
        ratios[name] = wide["utilisation"] / deep["utilisation"]
    assert ratios["large"] > 2 * ratios["eyeriss"]


def test_the_digital_array_has_no_arrays_of_cells(printed: dict[str, Any]) -> None:
    assert [each["arrays"] for each in on(printed, "eyeriss")] == [None, None]


def test_without_a_device_all_accelerators_are_printed(folder: Path) -> None:
    result = run("estimate", folder / "small.json")
    assert result.exit_code == 0, result.output
    assert all(name in result.stdout for name in shipped_hardware())
    assert "modelled, not measured" in result.stdout


def test_zeros_of_one_network_are_those_of_its_own(folder: Path) -> None:
    small = mobilenet_v1(0.25, 32, classes=10, pairs=3)
    densities = Densities(small.name, "d", 1, {node.name: LayerDensity(0.5, 0.2, 0.5) for node in small.nodes})
    write_densities(densities, folder / "d.json")
    write_plan(Plan(small), folder / "pruned.json")
    models = (folder / "small.json", folder / "pruned.json")
    command = ("estimate", *models, "--device", "model:eyeriss_v2", "--densities", f"{models[1]}={folder / 'd.json'}")
    dense, pruned = json.loads(run(*command, "--json").stdout)["accelerators"]["model:eyeriss_v2"]["networks"].values()
    assert pruned["energy_mj"] < 0.8 * dense["energy_mj"]


def test_skipped_zeros_are_told_where_more_than_all_is_used(folder: Path) -> None:
    command = ("estimate", folder / "small.json", "--device")
    assert "where zeros are skipped" in run(*command, "model:eie@weight_density=0.05,input_density=0.05").stdout
    assert "where zeros are skipped" not in run(*command, "model:eie").stdout


def test_utilisation_is_the_share_of_the_peak(folder: Path) -> None:
    found = json.loads(run("estimate", folder / "small.json", "--device", "model:diannao@batch=1", "--json").stdout)
    (cost,) = found["accelerators"]["model:diannao@batch=1"]["networks"].values()
    (size,) = found["networks"].values()
    hardware = shipped_hardware()["diannao"].hardware
    peak = hardware.units * hardware.array.macs_per_cycle * hardware.clock_mhz * 1e3  # in a millisecond
    assert cost["utilisation"] == pytest.approx(size["macs"] / (cost["latency_ms"] * peak))


def estimated(plan: Path, accelerator: str) -> dict[str, Any]:
    found = json.loads(run("estimate", plan, "--device", accelerator, "--json").stdout)
    cost: dict[str, Any] = found["accelerators"][accelerator]["networks"][str(plan)]
    return cost


def test_a_large_matrix_product_is_dear_for_its_weights_in_dram(folder: Path) -> None:
    layer = fully_connected((1, 4096), 4096)
    write_plan(Plan(Graph("product", (("x", (1, 4096)),), (Node("fc", layer, ("x",)),), ("fc",))), folder / "product.json")
    cost = estimated(folder / "product.json", "model:diannao")
    hardware = shipped_hardware()["diannao"].hardware
    dram_mj = 4096 * 4096 * hardware.energy.dram * hardware.energy.unit_pj / 1e9
    assert cost["dearest"] == {"name": "weights in dram", "share": pytest.approx(dram_mj / cost["energy_mj"])}


def test_depthwise_layers_leave_most_of_a_systolic_array_unused(folder: Path) -> None:
    bound = estimated(folder / "small.json", "model:tpu_like")["bound"]
    assert (bound["name"], bound["share"] > 0.5) == ("array shape", True)


@pytest.mark.parametrize("name", shipped_hardware())
def test_shares_of_what_bounds_and_of_what_takes_energy_are_of_all_of_it(name: str) -> None:
    graph = mobilenet_v1(0.25, 32, classes=10, pairs=3)
    found = breakdown(open_model(f"model:{name}"), graph.name, [(node.name, node.layer) for node in graph.nodes])
    assert sum(found.parts_mj.values()) == pytest.approx(found.energy_mj)
    assert sum(found.bound_ms.values()) == pytest.approx(found.latency_ms)


def test_what_bounds_a_network_and_takes_most_of_its_energy_is_printed(folder: Path) -> None:
    cost = estimated(folder / "small.json", "model:tpu_like")
    printed = run("estimate", folder / "small.json", "--device", "model:tpu_like").stdout
    for found in (cost["bound"], cost["dearest"]):
        assert f"{found['name']}, {100 * found['share']:.0f} %" in printed


def test_a_network_that_costs_nothing_has_no_shares_of_it(folder: Path) -> None:
    result = run("estimate", folder / "deep.json", "--device", "model:eie@weight_density=0")
    assert result.exit_code == 0, result.output
    assert "deep.json cannot run on model:eie@weight_density=0" in result.stdout
    assert "takes no energy on EIE" in result.stdout


def test_a_network_that_cannot_run_is_told_and_stops_no_other(folder: Path) -> None:
    text = shipped_hardware()["eyeriss"].text.replace("unit_input_words = 12", "unit_input_words = 2")
    (folder / "tiny.toml").write_text(text.partition("[[workload]]")[0])
    devices = ("--device", f"model:{folder / 'tiny.toml'}", "--device", "model:diannao")
    result = run("estimate", folder / "small.json", *devices)
    assert result.exit_code == 0, result.output
    assert "small.json cannot run on" in result.stdout
    assert "diannao" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--device", "local"), "is no accelerator that is modelled"),
        (("--densities", "other.onnx=d.json"), "is for none of the networks"),
        (("--device", "model:eyeris"), "did you mean 'eyeriss'"),
    ],
)
def test_wrong_arguments_are_told(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    result = run("estimate", folder / "small.json", *arguments)
    assert result.exit_code == 1
    assert said in result.stderr
