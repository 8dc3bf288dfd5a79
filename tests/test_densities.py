"""How many values of a network are zero, and what modelled accelerators make of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from graphs import in_a_row, mobilenet_v1
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from netadapt.cli.app import app as netadapt_app
from netadapt.pruning.tracing import trace
from netadapt.resources import open_goals, parse_budgets
from netadapt.weight_pruning.densities import measured_densities
from profiler.cli.app import app as profile_app
from profiler.errors import HardwareError
from profiler.formats.onnx.writer import write_onnx
from profiler.layers.channels import possible_widths
from profiler.layers.layer import conv2d
from profiler.modelled.densities import Densities, LayerDensity, read_densities, write_densities
from profiler.modelled.model import open_model
from profiler.tables.build_modelled import build_modelled
from profiler.tables.plan import Plan, make_plan, write_plan
from profiler.tables.predictor import Predictor
from profiler.tables.pricing import Pricer
from profiler.tables.table import load_table

GRAPH = mobilenet_v1(0.25, 32, classes=10, pairs=3)
WEIGHTED = [node.name for node in GRAPH.nodes if node.name != "pool"]
SPARSE = Densities(
    GRAPH.name, "digits", 8, {name: LayerDensity(0.9 - 0.1 * place, 0.3, 0.5) for place, name in enumerate(WEIGHTED)}
)
TESTS = Path(__file__).parent
TOY = f"{TESTS}/toys/network.py:toy"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(2)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.head = nn.Linear(8 * 4 * 4, 5)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.pool(torch.relu(self.norm(self.first(images))))
        outputs: Tensor = self.head((torch.relu_(self.second(pooled)) + pooled).flatten(1))
        return outputs


IMAGES = torch.randn(100, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        net.second.weight[:2] = 0
    return net


@pytest.fixture(scope="module")
def found(net: Net) -> Densities:
    return measured_densities(net, trace(net, ((1, 3, 8, 8),), "net"), IMAGES, "net", "noise")


def share(values: Tensor) -> float:
    return float((values != 0).float().mean())


def test_weights_are_counted_as_they_are(found: Densities) -> None:
    assert found.layers["second"].weight == pytest.approx(0.75)
    assert found.layers["first"].weight == 1


def test_what_a_layer_writes_is_counted_behind_its_normalisation_and_activation(net: Net, found: Densities) -> None:
    with torch.no_grad():
        expected = torch.relu(net.norm(net.first(IMAGES)))
    assert found.layers["first"].output == pytest.approx(share(expected))


def test_an_activation_in_place_is_counted_too_but_not_what_is_added_behind_it(net: Net, found: Densities) -> None:
    with torch.no_grad():
        pooled = net.pool(torch.relu(net.norm(net.first(IMAGES))))
        expected = torch.relu(net.second(pooled))
    assert found.layers["second"].output == pytest.approx(share(expected))
    assert found.layers["second"].output < share(expected + pooled)


def test_what_a_layer_reads_is_counted_where_it_reads_it(net: Net, found: Densities) -> None:
    with torch.no_grad():
        pooled = net.pool(torch.relu(net.norm(net.first(IMAGES))))
        head = torch.relu(net.second(pooled)) + pooled
    assert found.layers["first"].input == pytest.approx(1)
    assert found.layers["second"].input == pytest.approx(share(pooled))
    assert found.layers["head"].input == pytest.approx(share(head))


def test_a_pooling_reads_what_its_layer_writes_and_writes_what_the_next_one_reads(found: Densities) -> None:
    pool = next(layer for name, layer in found.layers.items() if name not in ("first", "second", "head"))
    assert (pool.input, pool.output) == (found.layers["first"].output, found.layers["second"].input)


def test_counting_leaves_the_network_as_it_was(net: Net) -> None:
    graph, before = trace(net, ((1, 3, 8, 8),), "net"), {name: value.clone() for name, value in net.state_dict().items()}
    net.train()
    measured_densities(net, graph, IMAGES[:2], "net", "noise")
    assert net.training
    net.eval()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not net.first._forward_hooks


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_densities(SPARSE, tmp_path / "d.json")
    assert read_densities(tmp_path / "d.json") == SPARSE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing", "is not a file of densities"),
        ("[]", "is not a file of densities"),
        ('{"format": 9}', "format 9, this version reads 1"),
        (json.dumps({"format": 1, **SPARSE.to_dict(), "layers": {"a": {"input": 2.0}}}), "not from 0 to 1"),
    ],
)
def test_another_file_is_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(HardwareError, match=said):
        read_densities(tmp_path / "d.json")


def test_a_file_that_is_not_there_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="`netadapt densities` makes"):
        read_densities(tmp_path / "d.json")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A table with densities, and their file."""
    folder = tmp_path_factory.mktemp("files")
    write_densities(SPARSE, folder / "d.json")
    build_modelled([make_plan(GRAPH)], "model:eyeriss_v2", folder / "t.parquet", folder / "d.json")
    return folder / "t.parquet", folder / "d.json"


def test_a_table_keeps_the_densities_and_says_so(paths: tuple[Path, Path]) -> None:
    model = load_table(paths[0]).info.model
    assert model is not None
    assert model.densities == SPARSE
    assert f"zeros of {len(WEIGHTED)} layers of {GRAPH.name} on 8 images of digits" in model.sentence()


def test_a_network_costs_what_its_layers_cost_with_their_own_zeros(paths: tuple[Path, Path]) -> None:
    resource = open_goals(parse_budgets(["energy=50%"]), {"": load_table(paths[0])})[0].resource
    dense = open_model("model:eyeriss_v2")
    expected = 0.0
    for node in GRAPH.nodes:
        one = SPARSE.layers.get(node.name, LayerDensity())
        own = replace(dense.assumptions, input_density=one.input, weight_density=one.weight, output_density=one.output)
        expected += dense.assuming(own).cost(node.layer).energy_mj
    assert resource.price(GRAPH) == pytest.approx(expected)
    assert resource.price(GRAPH) < 0.9 * sum(dense.cost(layer).energy_mj for layer in GRAPH.layers)


def test_prices_of_many_widths_are_those_of_each_with_densities(paths: tuple[Path, Path]) -> None:
    table = load_table(paths[0])
    predictor, resource = Predictor(table), open_goals(parse_budgets(["energy=50%"]), {"": table})[0].resource
    latencies, energies = Pricer(predictor, GRAPH), resource.pricer(GRAPH)  # type: ignore[attr-defined]
    for block, widths in possible_widths(GRAPH, 8).items():
        networks = [GRAPH.at_widths({block: width}) for width in widths]
        assert latencies.prices(block, widths) == pytest.approx([predictor.predict(one).latency_ms.value for one in networks])
        assert energies.prices(block, widths) == pytest.approx([resource.price(one) for one in networks])


def test_the_row_of_a_layer_with_other_zeros_at_each_place_is_their_mean(tmp_path: Path) -> None:
    layer = conv2d((1, 8, 8, 16), 16, 3)
    graph = in_a_row(layer, layer)
    densities = Densities("net", "d", 1, {"layer_0": LayerDensity(0.2), "layer_1": LayerDensity(0.8)})
    write_densities(densities, tmp_path / "d.json")
    table = build_modelled([Plan(graph)], "model:eyeriss_v2", tmp_path / "t.parquet", tmp_path / "d.json")
    each = [open_model(f"model:eyeriss_v2@input_density={share}").cost(layer).energy_mj for share in (0.2, 0.8)]
    assert table.energy_mj[layer] == pytest.approx(sum(each) / 2)


def test_the_page_s_form_says_that_it_lacks_the_zeros_of_single_layers(paths: tuple[Path, Path], tmp_path: Path) -> None:
    result = profile("export", paths[0], "--format", "energy-page", "--out", tmp_path / "page.txt")
    assert result.exit_code == 0, result.output
    assert "without the zeros of single layers" in result.output


def test_densities_of_another_network_are_refused(paths: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="has no layer of their names"):
        build_modelled([Plan(in_a_row(conv2d((1, 8, 8, 3), 8, 3)))], "model:eyeriss", tmp_path / "t.parquet", paths[1])


def profile(*arguments: object) -> Result:
    return CliRunner().invoke(profile_app, [str(argument) for argument in arguments])


def netadapt(*arguments: object) -> Result:
    return CliRunner().invoke(netadapt_app, [str(argument) for argument in arguments])


def test_densities_of_a_prediction_take_the_place_of_those_of_the_table(paths: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(write_onnx(GRAPH))
    build_modelled([Plan(GRAPH)], "model:eyeriss_v2", tmp_path / "dense.parquet")
    command = ("predict", tmp_path / "dense.parquet", tmp_path / "net.onnx", "--json")
    dense, sparse = (json.loads(profile(*command, *more).stdout) for more in ((), ("--densities", paths[1])))
    assert sparse["energy_mj"] == pytest.approx(json.loads(profile("predict", paths[0], *command[2:]).stdout)["energy_mj"])
    assert sparse["energy_mj"] < dense["energy_mj"]


def test_a_prediction_says_how_many_layers_the_zeros_are_known_of(paths: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(write_onnx(mobilenet_v1(0.25, 32, classes=10, pairs=4)))
    assert "zeros are known of 8 of 10 layers" in profile("predict", paths[0], tmp_path / "net.onnx").stdout


def test_a_device_that_is_measured_takes_no_densities(paths: tuple[Path, Path], tmp_path: Path) -> None:
    write_plan(Plan(GRAPH), tmp_path / "plan.json")
    result = profile(
        "build", tmp_path / "plan.json", "--runtime", "onnxruntime", "--densities", paths[1], "--out", tmp_path / "t.parquet"
    )
    assert result.exit_code == 1
    assert "is measured, not modelled" in result.stderr


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run"
    result = netadapt(
        "run", TOY, "--data", "digits", "--resolution", 16, "--epochs", 0.1, "--short-term-steps", 1, "--step", 0.3, "--budget",
        "macs=80%", "--out", path, "--no-dry-run",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return path


def test_the_command_counts_a_step_of_a_run_and_its_file_is_taken_by_profile_build(toy_run: Path, tmp_path: Path) -> None:
    result = netadapt("densities", toy_run, "--images", 8, "--out", tmp_path / "d.json", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["layers"].keys() == read_densities(tmp_path / "d.json").layers.keys()
    assert netadapt("export", toy_run, "--format", "onnx", "--out", tmp_path / "net.onnx").exit_code == 0
    arguments = ("--device", "model:eyeriss", "--densities", tmp_path / "d.json", "--out", tmp_path / "t.parquet")
    assert profile("build", tmp_path / "net.onnx", *arguments).exit_code == 0
    printed = profile("predict", tmp_path / "t.parquet", tmp_path / "net.onnx").stdout
    assert "zeros of" in printed
    assert "zeros are known of" not in printed  # as they are of every layer


def test_the_command_counts_a_network_by_name_and_warns_of_random_weights(tmp_path: Path) -> None:
    result = netadapt("densities", TOY, "--data", "digits", "--resolution", 16, "--images", 8, "--out", tmp_path / "d.json")
    assert result.exit_code == 0, result.output
    assert "are random, so its zeros are too" in result.stderr
    assert "8 images of digits" in result.stdout


def test_a_folder_that_is_not_there_is_told_before_anything_is_counted(tmp_path: Path) -> None:
    result = netadapt("densities", TOY, "--data", "nowhere", "--out", tmp_path / "none" / "d.json")
    assert result.exit_code == 1
    assert "there is no folder" in result.stderr


def test_a_network_without_images_is_told(tmp_path: Path) -> None:
    result = netadapt("densities", TOY, "--out", tmp_path / "d.json")
    assert result.exit_code == 1
    assert "give them with --data" in result.stderr


def test_the_compressed_size_of_a_step_is_printed_with_its_accuracy(toy_run: Path) -> None:
    result = netadapt("compressed-size", toy_run, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["size_bytes"] <= found["bytes_without_huffman"] < found["original_bytes"]
    assert sum(layer["bits"] for layer in found["layers"].values()) + found["other_bits"] <= 8 * found["size_bytes"]
    assert 0 <= found["test_accuracy_compressed"] <= 1
    assert "times smaller" in netadapt("compressed-size", toy_run, "--step", 0).stdout


def test_weights_that_are_given_take_the_place_of_those_of_the_step(toy_run: Path, tmp_path: Path) -> None:
    (weights,) = {path for path in (toy_run / "weights").iterdir() if path.name.startswith("000")}
    state = torch.load(weights, weights_only=True)
    torch.save({name: value * 0 if name == "5.weight" else value for name, value in state.items()}, tmp_path / "zero.pt")
    given = ("--step", 0, "--images", 4, "--weights", tmp_path / "zero.pt", "--out", tmp_path / "d.json")
    assert netadapt("densities", toy_run, *given).exit_code == 0
    assert read_densities(tmp_path / "d.json").layers["5"].weight == 0
