"""Tables of accelerators that are known: computed for any width, and read, priced, compared and shown like measured ones."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from graphs import mobilenet_v1
from hypothesis import given, settings
from hypothesis import strategies as st
from test_serve import browser
from typer.testing import CliRunner, Result

from netadapt.errors import RunError
from netadapt.resources import open_goals, parse_budgets
from netadapt.runs.device_check import within_reach
from profiler.cli.app import app
from profiler.errors import HardwareError, TableError
from profiler.formats.onnx.writer import write_onnx
from profiler.layers.channels import possible_widths
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec, conv2d, fully_connected
from profiler.modelled.hardware import shipped_hardware
from profiler.modelled.model import model_of, open_model
from profiler.progress import Silent
from profiler.runtimes import MODELLED_RUNTIME
from profiler.tables.build_modelled import build_modelled
from profiler.tables.check import check_table
from profiler.tables.compare import compare
from profiler.tables.growing import GrowingTable
from profiler.tables.plan import Plan, make_plan, write_plan
from profiler.tables.predictor import Predictor
from profiler.tables.pricing import Pricer
from profiler.tables.table import Table, load_table
from profiler.tables.trust import trust_sentence

GRAPH = mobilenet_v1(0.25, 64, classes=10)
PLAN = make_plan(GRAPH)


def table_at(path: Path, address: str = "model:eyeriss", plan: Plan = PLAN) -> Table:
    build_modelled([plan], address, path)
    return load_table(path)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "eyeriss.parquet"
    table_at(path)
    return path


@pytest.fixture(scope="module")
def table(path: Path) -> Table:
    return load_table(path)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_price_of_a_layer_is_its_row(table: Table) -> None:
    predictor, model = Predictor(table), model_of(table.info.modelled or {})
    for layer, row in table.rows.items():
        assert predictor.sums_of(layer) is not None
        assert model.cost(layer).latency_ms == row.latency_ms.value
        assert model.cost(layer).energy_mj == table.energy_mj[layer]


@pytest.mark.parametrize("name", shipped_hardware())
def test_prices_of_many_widths_are_those_of_each(tmp_path: Path, name: str) -> None:
    table = table_at(tmp_path / "t.parquet", f"model:{name}", Plan(GRAPH))
    predictor, goals = Predictor(table), open_goals(parse_budgets(["energy=50%"]), {"": table})
    widths = possible_widths(GRAPH, 8)
    latencies, energies = Pricer(predictor, GRAPH), goals[0].resource.pricer(GRAPH)  # type: ignore[attr-defined]
    for block in list(widths)[::4]:
        some = widths[block][::3]
        networks = [GRAPH.at_widths({block: width}) for width in some]
        assert latencies.prices(block, some) == pytest.approx([predictor.predict(one).latency_ms.value for one in networks])
        assert energies.prices(block, some) == pytest.approx([goals[0].resource.price(one) for one in networks])


def test_a_width_between_the_rows_is_computed_and_not_interpolated(table: Table) -> None:
    layer = conv2d((1, 8, 8, 33), 47, 3)
    found = Predictor(table).lookup(layer)
    assert found is not None
    assert found.source == "modelled"
    assert found.estimate.latency_ms.value == open_model("model:eyeriss").cost(layer).latency_ms


def test_a_table_of_nothing_but_zeros_is_not_written(tmp_path: Path) -> None:
    layer = conv2d((1, 8, 8, 16), 32, 3)
    plan = Plan(Graph("net", (("x", layer.inputs[0]),), (Node("conv", layer, ("x",)),), ("conv",)))
    with pytest.raises(TableError, match="no layer costs anything on EIE"):
        table_at(tmp_path / "t.parquet", "model:eie@weight_density=0", plan)
    assert not (tmp_path / "t.parquet").exists()


def test_a_network_costs_what_its_layers_cost(table: Table) -> None:
    resource = open_goals(parse_budgets(["energy=50%"]), {"": table})[0].resource
    assert resource.price(GRAPH) == pytest.approx(sum(table.energy_mj[layer] for layer in GRAPH.layers if layer in table.energy_mj))


@pytest.mark.parametrize("name", shipped_hardware())
def test_the_parts_of_the_energy_add_up(name: str) -> None:
    for layer in GRAPH.layers:
        cost = open_model(f"model:{name}").cost(layer)
        moved = sum(energy_mj for kinds in cost.data_mj.values() for energy_mj in kinds.values())
        assert cost.energy_mj == pytest.approx(moved + cost.compute_mj + cost.overhead_mj)


layers = st.one_of(
    st.builds(
        lambda size, channels, filters, kernel, stride: conv2d((1, size, size, channels), filters, kernel, stride=stride),
        st.integers(4, 64), st.integers(1, 300), st.integers(1, 300), st.sampled_from([1, 3, 5, 7]), st.integers(1, 2),
    ),
    st.builds(lambda channels, filters: fully_connected((1, channels), filters), st.integers(1, 5000), st.integers(1, 5000)),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(layers, st.sampled_from(sorted(shipped_hardware())))
def test_any_layer_has_energy_and_latency(layer: LayerSpec, name: str) -> None:
    cost = open_model(f"model:{name}").cost(layer)
    assert 0 < cost.energy_mj < math.inf
    assert 0 < cost.latency_ms < math.inf
    assert all(left <= 1.001 * before for before, left in zip(cost.macs_per_cycle.values(), [*cost.macs_per_cycle.values()][1:]))  # noqa: B905


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 16), st.integers(1, 16))
def test_images_at_a_time_never_make_an_image_dearer_where_they_divide(one: int, times: int) -> None:
    layer = fully_connected((1, 256), 512)
    few, many = (open_model(f"model:eyeriss@batch={batch}").cost(layer).energy_mj for batch in (one, one * times))
    assert many <= few * 1.001


def test_a_matrix_product_costs_less_with_more_images_at_a_time() -> None:
    layer = fully_connected((1, 4096), 4096)
    costs = [open_model(f"model:eyeriss@batch={batch}").cost(layer).energy_mj for batch in (1, 4, 16)]
    assert costs == sorted(costs, reverse=True)


def test_layers_of_integers_move_fewer_bits() -> None:
    layer, model = conv2d((1, 16, 16, 32), 32, 3), open_model("model:eyeriss")
    assert model.cost(layer.with_dtype("int8")).energy_mj < model.cost(layer).energy_mj


def test_a_layer_without_multiplications_costs_its_data() -> None:
    pool = LayerSpec("max_pool2d", ((1, 8, 8, 16),), (1, 4, 4, 16), kernel=(2, 2), stride=(2, 2))
    cost = open_model("model:eyeriss").cost(pool)
    assert cost.compute_mj == 0
    assert cost.dram_bytes == 2 * (8 * 8 * 16 + 4 * 4 * 16)
    assert cost.bound == "data movement"


def test_a_shortcut_is_read_too() -> None:
    plain, model = conv2d((1, 8, 8, 16), 16, 3), open_model("model:eyeriss")
    added = replace(plain, inputs=(*plain.inputs, plain.output))
    assert model.cost(added).dram_bytes == model.cost(plain).dram_bytes + 2 * 8 * 8 * 16


@pytest.mark.parametrize("name", shipped_hardware())
def test_a_layer_of_zeros_can_be_asked_for(name: str) -> None:
    cost = open_model(f"model:{name}@input_density=0,weight_density=0,output_density=0").cost(conv2d((1, 8, 8, 16), 16, 3))
    assert 0 <= cost.energy_mj < math.inf


def test_flattening_costs_nothing() -> None:
    assert open_model("model:eyeriss").cost(LayerSpec("flatten", ((1, 2, 2, 8),), (1, 32))).energy_mj == 0


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("model:eyerris", "did you mean 'eyeriss'"),
        ("model:eyeriss@bat=2", "did you mean 'batch'"),
        ("model:eyeriss@batch=many", "batch takes a number"),
        ("model:eyeriss@batch=0", "1 to 4096 images"),
        ("model:eyeriss@bits=32", "words of 16 bits"),
        ("model:eyeriss@input_density=1.5", "from 0 to 1"),
        ("model:./nowhere.toml", "cannot be read"),
    ],
)
def test_a_wrong_address_is_told(address: str, said: str) -> None:
    with pytest.raises(HardwareError, match=said):
        open_model(address)


def test_a_table_says_that_it_is_modelled_with_hash_and_engine(table: Table) -> None:
    sentence = trust_sentence(table)
    file = shipped_hardware()["eyeriss"]
    assert sentence.startswith("modelled, not measured: Eyeriss")
    assert file.sha256[:12] in sentence
    assert "row_stationary 1" in sentence
    assert "4 images at a time" in sentence


def test_hardware_that_is_checked_against_published_energies_is_verified(table: Table, tmp_path: Path) -> None:
    assert table.verified
    assert not table_at(tmp_path / "v2.parquet", "model:eyeriss_v2").verified


def test_a_description_of_a_user_is_kept_in_the_table_and_is_not_verified(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(shipped_hardware()["eyeriss"].text.replace("clock_mhz = 200", "clock_mhz = 400"))
    table = table_at(tmp_path / "mine.parquet", f"model:{mine}")
    mine.unlink()
    faster = load_table(tmp_path / "mine.parquet")
    assert not table.verified
    assert Predictor(faster).predict(GRAPH).latency_ms.value == pytest.approx(Predictor(table).predict(GRAPH).latency_ms.value)


def test_a_table_of_another_version_of_the_engine_is_refused(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    modelled = {**(table.info.modelled or {}), "engine_version": 99}
    replace(table, info=replace(table.info, device={**table.info.device, "modelled": modelled})).save(path)
    with pytest.raises(TableError, match="version 99 of the engine row_stationary, this is version 1"):
        load_table(path)


@pytest.mark.parametrize(
    "damage", [{"text": "name = 3"}, {"engine": 5}, {"batch": "many"}, {"batch": 0}, {"text": None}, {"input_density": 7.0}]
)
def test_a_damaged_description_is_told(table: Table, tmp_path: Path, damage: dict[str, object]) -> None:
    path = tmp_path / "damaged.parquet"
    modelled = {**(table.info.modelled or {}), **damage}
    replace(table, info=replace(table.info, device={**table.info.device, "modelled": modelled})).save(path)
    with pytest.raises(TableError, match="damaged"):
        load_table(path)


def test_a_network_is_added_to_a_table_of_the_same_hardware_only(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    first = table_at(path, plan=Plan(GRAPH))
    both = table_at(path, plan=Plan(mobilenet_v1(0.5, 64, classes=10)))
    assert first.rows.keys() < both.rows.keys()
    with pytest.raises(TableError, match="is another table"):
        build_modelled([PLAN], "model:diannao", path)


def test_a_layer_that_does_not_fit_is_missing_with_its_reason(tmp_path: Path) -> None:
    mine = tmp_path / "tiny.toml"
    text = shipped_hardware()["eyeriss"].text.replace("unit_input_words = 12", "unit_input_words = 2")
    mine.write_text(text.partition("[[workload]]")[0])
    build_modelled([Plan(GRAPH)], f"model:{mine}", tmp_path / "t.parquet")
    table = load_table(tmp_path / "t.parquet")
    missing = Predictor(table).explain(GRAPH).missing
    assert missing
    assert "has no room" in (Predictor(table).why_missing(missing[0].layer) or "")


def test_checking_it_says_that_nothing_was_measured(table: Table) -> None:
    assert any("modelled, not measured" in finding.what for finding in check_table(table))


def test_comparing_with_other_hardware_says_so(table: Table, tmp_path: Path) -> None:
    other = table_at(tmp_path / "v2.parquet", "model:eyeriss_v2")
    assert any("Eyeriss v2" in text for text in compare(table, other).differing_conditions)
    assert not compare(table, table).differing_conditions


def test_nothing_is_measured_on_it(path: Path, table: Table) -> None:
    goals = open_goals(parse_budgets(["latency=50%"]), {"": GrowingTable(path)})
    assert within_reach(goals, {"": table}, None, Silent()) == ()
    with pytest.raises(RunError, match="is modelled"):
        within_reach(goals, {"": table}, True, Silent())


def test_a_growing_table_prices_it_without_a_device(path: Path) -> None:
    assert GrowingTable(path).predict(GRAPH.at_widths({"pw1": 9})).latency_ms.value > 0


def test_the_command_builds_one_without_a_runtime(tmp_path: Path) -> None:
    write_plan(PLAN, tmp_path / "plan.json")
    result = run("build", tmp_path / "plan.json", "--device", "model:eyeriss", "--out", tmp_path / "t.parquet", "--json")
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert printed["runtime"] == MODELLED_RUNTIME
    assert printed["verified"]


def test_a_device_needs_a_runtime_still(tmp_path: Path) -> None:
    write_plan(PLAN, tmp_path / "plan.json")
    result = run("build", tmp_path / "plan.json", "--out", tmp_path / "t.parquet")
    assert result.exit_code == 1
    assert "the runtime is missing: a plan can be measured with any; name one" in result.output


def test_several_accelerators_are_built_at_once(tmp_path: Path) -> None:
    write_plan(Plan(GRAPH), tmp_path / "plan.json")
    devices = ("--device", "model:eyeriss", "--device", "model:pim_reram@batch=1")
    assert run("build", tmp_path / "plan.json", *devices, "--out", tmp_path / "{device}.parquet").exit_code == 0
    assert len(list(tmp_path.glob("*.parquet"))) == 2


def test_a_model_file_is_predicted_with_its_energy(path: Path, tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    model.write_bytes(write_onnx(GRAPH))
    printed = json.loads(run("predict", path, model, "--json").stdout)
    assert printed["energy_mj"] > 0
    assert printed["modelled"]["engine"] == "row_stationary"
    assert {layer["source"] for layer in printed["layers"]} == {"modelled"}
    assert "modelled, not measured" in run("predict", path, model).stdout
    assert run("predict", path, model, "--measure-missing").exit_code == 1


@pytest.mark.parametrize("arguments", [("show",), ("check",)])
def test_it_is_printed(path: Path, arguments: tuple[str, ...]) -> None:
    assert "modelled, not measured" in run(*arguments, path).stdout


def test_it_is_plotted(path: Path, tmp_path: Path) -> None:
    assert run("plot", path, "--out", tmp_path / "t.html").exit_code == 0
    assert "odelled, not measured" in (tmp_path / "t.html").read_text()


def test_the_dashboard_shows_it(path: Path) -> None:
    client = browser(path.parent)
    address = re.search(r'href="(/tables/[^"]+)"', client.get("/").text)
    assert address is not None
    page = client.get(address[1]).text
    assert "odelled, not measured" in page
    assert MODELLED_RUNTIME in client.get("/").text


def test_all_who_read_one_table_share_what_was_computed(path: Path) -> None:
    assert load_table(path).info.model is load_table(path).info.model
